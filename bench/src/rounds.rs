//! The order in which cells are measured.
//!
//! Every round measures each cell once, and begins one cell further than the round before: what the machine does
//! over time, and what a cell leaves behind for the next, hits all alike.

/// The cells of each round, by their numbers.
#[must_use]
pub fn interleaved(cells: usize, rounds: usize) -> Vec<Vec<usize>> {
    (0..rounds).map(|round| (0..cells).map(|place| (round + place) % cells).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_cell_and_begins_with_another() {
        assert_eq!(interleaved(3, 4), [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(interleaved(1, 2), [[0], [0]]);
        assert!(interleaved(0, 2).iter().all(Vec::is_empty));
    }

    #[test]
    fn over_as_many_rounds_as_cells_each_cell_has_every_place_once() {
        let rounds = interleaved(5, 5);
        for cell in 0..5 {
            let mut places: Vec<usize> =
                rounds.iter().map(|round| round.iter().position(|c| *c == cell).unwrap()).collect();
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2, 3, 4]);
        }
    }
}
