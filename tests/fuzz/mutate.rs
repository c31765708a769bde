//! Turns inputs into other inputs.

use super::random::Random;

/// Inputs do not grow beyond this.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers at which lengths and counts go wrong.
const EDGES: [i64; 14] = [
    0,
    1,
    -1,
    -2,
    7,
    127,
    128,
    255,
    i16::MAX as i64,
    u16::MAX as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];

/// Changes `input` a few times; `other` lends pieces.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.between(1, 4) {
        change(random, input, other);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    if input.is_empty() {
        input.extend(&other[..other.len().min(64)]);
        input.push(random.next() as u8);
        return;
    }
    let at = random.below(input.len());
    match random.below(11) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next() as u8,
        2 => input[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
        3 => put_edge(random, input, at),
        4 => input.truncate(at),
        5 => {
            let end = at + random.below((input.len() - at).min(32) + 1);
            input.drain(at..end);
        }
        6 => {
            let bytes: Vec<u8> = (0..random.between(1, 16)).map(|_| random.next() as u8).collect();
            input.splice(at..at, bytes);
        }
        7 => {
            let end = at + random.below((input.len() - at).min(256) + 1);
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        8 if !other.is_empty() => {
            let from = random.below(other.len());
            let end = from + random.below((other.len() - from).min(256) + 1);
            input.splice(at..at, other[from..end].iter().copied());
        }
        9 if !other.is_empty() => {
            let from = random.below(other.len());
            input.truncate(at);
            input.extend(&other[from..]);
        }
        _ => {
            // A varint that goes on.
            let end = (at + random.between(1, 6)).min(input.len());
            input[at..end].iter_mut().for_each(|byte| *byte |= 0x80);
        }
    }
}

/// An edge of some width in either byte order, or near it.
fn put_edge(random: &mut Random, input: &mut [u8], at: usize) {
    let mut value = EDGES[random.below(EDGES.len())];
    if random.chance(3) {
        value = value.wrapping_add(random.between(0, 4) as i64 - 2);
    }
    if random.chance(4) {
        value = input.len() as i64;
    }
    let width = [2, 4, 8][random.below(3)];
    let bytes = value.to_be_bytes();
    let mut bytes = bytes[8 - width..].to_vec();
    if random.chance(2) {
        bytes.reverse();
    }
    for (slot, byte) in input[at..].iter_mut().zip(bytes) {
        *slot = byte;
    }
}
