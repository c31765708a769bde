//! The figures as they are printed.

/// Rows of what was measured, with the aim where there is one.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<[String; 3]>,
}

impl Table {
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    pub fn row(&mut self, what: impl ToString, found: impl ToString, aim: impl ToString) {
        self.rows.push([what.to_string(), found.to_string(), aim.to_string()]);
    }

    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let (first, second) = (width(0).unwrap_or(0), width(1).unwrap_or(0));
        let mut text = format!("\n{}\n", self.title);
        for [what, found, aim] in &self.rows {
            let aim = if aim.is_empty() { String::new() } else { format!("  (aim: {aim})") };
            text += &format!("  {what:<first$}  {found:>second$}{aim}\n");
        }
        // At once, so that tests at the same time do not mix their lines.
        print!("{text}");
    }
}
