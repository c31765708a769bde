//! Turns the schema tables in `schema/` into Rust codecs.
//!
//! The grammar of the tables is documented in `codegen/parse.rs`, the shape of the generated code in
//! `codegen/emit.rs`. A table that does not follow the rules fails the build with its file and line.

mod codegen;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=codegen");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(reason) = generate() {
        println!("cargo::error={reason}");
    }
}

fn generate() -> Result<(), String> {
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let mut tables = Vec::new();
    for path in schema_files(&Path::new(&root).join("schema"))? {
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let table = codegen::parse::table(&text).map_err(|e| format!("{}:{e}", path.display()))?;
        tables.push(table);
    }
    let code = codegen::emit::messages(tables)?;
    let target = Path::new(&out).join("messages.rs");
    fs::write(&target, code).map_err(|e| format!("{}: {e}", target.display()))
}

/// All tables, in name order so that the output does not depend on the file system.
fn schema_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
        if path.extension().is_some_and(|ext| ext == "schema") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
