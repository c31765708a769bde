//! Values under numbers that their owner gives out: what waits for an answer, and the like.
//!
//! A number is a place and the count of its earlier uses. So a number that was given back finds nothing, whoever has the
//! place now, and finding takes neither a hash nor an allocation. Places are kept: as many as there once were values.

/// Values by number. Numbers are given out by [`Places::insert`].
#[derive(Debug)]
pub struct Places<V> {
    places: Vec<Place<V>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<V> {
    uses: u32,
    value: Option<V>,
}

impl<V> Default for Places<V> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<V> Places<V> {
    /// Takes a value in and says under which number.
    pub fn insert(&mut self, value: V) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, value: None });
            u32::try_from(self.places.len() - 1).expect("what waits is bounded far below 2^32")
        });
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        number(place.uses, index)
    }

    /// Takes a value out; `None` if it was taken before.
    pub fn remove(&mut self, number: u64) -> Option<V> {
        let (uses, index) = ((number >> 32) as u32, number as u32);
        let place = self.places.get_mut(index as usize)?;
        if place.uses != uses {
            return None;
        }
        let value = place.value.take()?;
        place.uses = place.uses.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them with their numbers, in order of places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            Some((number(place.uses, index as u32), place.value.as_ref()?))
        })
    }
}

fn number(uses: u32, index: u32) -> u64 {
    u64::from(uses) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_value_once_and_never_another_one() {
        let mut places = Places::default();
        let (first, second) = (places.insert('a'), places.insert('b'));
        assert_eq!(places.remove(first), Some('a'));
        let third = places.insert('c');
        assert_eq!((places.remove(first), places.len()), (None, 2));
        assert_eq!(places.iter().collect::<Vec<_>>(), [(third, &'c'), (second, &'b')]);
        assert_eq!((places.remove(third), places.remove(second)), (Some('c'), Some('b')));
        assert!(places.is_empty());
    }
}
