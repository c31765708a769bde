//! What a request names more than once. In one pass, because a request may name hundreds of thousands.

use std::collections::HashSet;
use std::hash::Hash;

/// Those of `keys` that come more than once.
pub fn of<K: Copy + Eq + Hash>(keys: impl IntoIterator<Item = K>) -> HashSet<K> {
    let mut seen = HashSet::new();
    keys.into_iter().filter(|key| !seen.insert(*key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_again_is_repeated() {
        assert_eq!(of(["a", "b", "a", "c", "a"]), HashSet::from(["a"]));
        assert!(of([1, 2, 3]).is_empty());
    }
}
