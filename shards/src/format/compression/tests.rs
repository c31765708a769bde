use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

/// In one piece; and piece by piece, which must come to the same.
fn decompress(codec: Codec, input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let whole = super::decompress(codec, input, limit_bytes);
    let pieces = by_pieces(codec, input, limit_bytes);
    assert_eq!(pieces.as_ref().ok(), whole.as_ref().ok(), "{codec}: {pieces:?} and {whole:?}");
    whole
}

fn by_pieces(codec: Codec, input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut pieces = Pieces::new(codec, input, limit_bytes)?;
    let mut output = Vec::new();
    while let Some(piece) = pieces.next_piece()? {
        output.extend_from_slice(piece);
    }
    assert_eq!(pieces.next_piece(), Ok(None), "{codec}: the end stays the end");
    Ok(output)
}
const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What every golden stream below holds.
fn golden_text() -> Vec<u8> {
    (0..12).flat_map(|i| format!("record {} of the golden text; ", i % 7).into_bytes()).collect()
}

/// Written by Python's gzip, python-snappy 0.7, lz4 4.4, zstandard 0.25 and kafka-python 3.0.
const FOREIGN: [(&str, Codec, &str); 11] = [
    (
        "one gzip member",
        Codec::Gzip,
        "1f8b08000000000002032b4a4dce2f4a513050c84f5328c9485548cfcf4949cd532849ad28b1562882481ae29334\
         c227698c4fd2049fa4293e49337c9283c72b00a86819055c010000",
    ),
    (
        "two gzip members",
        Codec::Gzip,
        "1f8b08000000000002032b4a4dce2f4a513050c84f5328c9485548cfcf4949cd532849ad28b1562882481ae29334\
         c227690c960400f79dd45c640000001f8b0800000000000203cb485548cfcf4949cd532849ad28b156284a4dce2f\
         4a513051c84f5328c9c02e698a4fd20c9fa4013e49437c9246f8248df14962f70a00f86d2ab9f8000000",
    ),
    (
        "a bare snappy block",
        Codec::Snappy,
        "dc02707265636f72642030206f662074686520676f6c64656e20746578743b200d1d00316e1d0000326e1d000033\
         6e1d0000346e1d0000356e1d0000366e1d00fecb00fecb0019cb",
    ),
    (
        "a xerial stream of three blocks",
        Codec::Snappy,
        "82534e41505059000000000100000001000000378001707265636f72642030206f662074686520676f6c64656e20\
         746578743b200d1d00316e1d0000326e1d0000336e1d001034206f66200000003280017074686520676f6c64656e\
         20746578743b207265636f72642035206f66205e1d0000366e1d0000306e1d0000313e1d000000002c5c70657874\
         3b207265636f72642032206f662074686520676f6c64656e20742e1d0000336e1d000034521d00",
    ),
    (
        "a xerial stream with little-endian versions",
        Codec::Snappy,
        "82534e41505059000100000001000000 00000048 \
         dc02707265636f72642030206f662074686520676f6c64656e20746578743b200d1d00316e1d0000326e1d000033\
         6e1d0000346e1d0000356e1d0000366e1d00fecb00fecb0019cb",
    ),
    (
        "a linked lz4 frame with its content size",
        Codec::Lz4,
        "04224d1868405c010000000000007549000000f30e7265636f72642030206f662074686520676f6c64656e207465\
         78743b201d001f311d00091f321d00091f331d00091f341d00091f351d00091f361d00090fcb0072506578743b20\
         00000000",
    ),
    (
        "an lz4 frame of independent blocks",
        Codec::Lz4,
        "04224d1860408249000000f30e7265636f72642030206f662074686520676f6c64656e20746578743b201d001f31\
         1d00091f321d00091f331d00091f341d00091f351d00091f361d00090fcb0072506578743b2000000000",
    ),
    (
        "an lz4 frame with every checksum",
        Codec::Lz4,
        "04224d187c405c01000000000000e849000000f30e7265636f72642030206f662074686520676f6c64656e207465\
         78743b201d001f311d00091f321d00091f331d00091f341d00091f351d00091f361d00090fcb0072506578743b20\
         17785e85000000009fe3eac6",
    ),
    (
        "a zstd frame with its content size",
        Codec::Zstd,
        "28b52ffd605c002d020084027265636f72642030206f662074686520676f6c64656e20746578743b203132333435\
         3630313233340c00e013c01c60186004300718061801cc0186014600bb814c3901",
    ),
    (
        "a zstd frame of unknown size",
        Codec::Zstd,
        "28b52ffd00582d020084027265636f72642030206f662074686520676f6c64656e20746578743b20313233343536\
         30313233340c00e013c01c60186004300718061801cc0186014600bb814c3901",
    ),
    (
        "not compressed",
        Codec::None,
        "7265636f72642030206f662074686520676f6c64656e20746578743b20\
         7265636f72642031206f662074686520676f6c64656e20746578743b20\
         7265636f72642032206f662074686520676f6c64656e20746578743b20\
         7265636f72642033206f662074686520676f6c64656e20746578743b20\
         7265636f72642034206f662074686520676f6c64656e20746578743b20\
         7265636f72642035206f662074686520676f6c64656e20746578743b20\
         7265636f72642036206f662074686520676f6c64656e20746578743b20\
         7265636f72642030206f662074686520676f6c64656e20746578743b20\
         7265636f72642031206f662074686520676f6c64656e20746578743b20\
         7265636f72642032206f662074686520676f6c64656e20746578743b20\
         7265636f72642033206f662074686520676f6c64656e20746578743b20\
         7265636f72642034206f662074686520676f6c64656e20746578743b20",
    ),
];

#[test]
fn what_other_libraries_write_is_read() {
    for (name, codec, bytes) in FOREIGN {
        assert_eq!(decompress(codec, &hex(bytes), LIMIT), Ok(golden_text()), "{name}");
    }
}

#[test]
fn the_limit_is_exact() {
    let length = golden_text().len();
    for (name, codec, bytes) in FOREIGN {
        let bytes = hex(bytes);
        assert_eq!(decompress(codec, &bytes, length), Ok(golden_text()), "{name}");
        for limit in [0, 1, 200, length - 1] {
            let expected = Err(CompressionError::TooLarge { codec, limit });
            assert_eq!(decompress(codec, &bytes, limit), expected, "{name}");
        }
    }
}

#[test]
fn every_truncation_is_damage() {
    for (name, codec, bytes) in FOREIGN {
        let bytes = hex(bytes);
        for length in 0..bytes.len() {
            match decompress(codec, &bytes[..length], LIMIT) {
                Err(CompressionError::Damaged { .. }) => {}
                // Between two members, frames or blocks there is nothing to notice a cut by.
                Ok(output) => assert!(
                    codec == Codec::None
                        || golden_text().starts_with(&output) && output.len() < 348,
                    "{name} at {length}"
                ),
                Err(error) => panic!("{name} at {length}: {error}"),
            }
        }
    }
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let zeroes = vec![0; 64 << 20];
    for codec in COMPRESSED {
        let bomb = compress(codec, &zeroes);
        let expected = Err(CompressionError::TooLarge { codec, limit: LIMIT });
        assert_eq!(decompress(codec, &bomb, LIMIT), expected);
    }
}

#[test]
fn an_lz4_frame_is_what_the_java_client_writes() {
    let frame = compress(Codec::Lz4, b"no repetition");
    let expected = "04224d18 60 40 82 0d000080 6e6f2072657065746974696f6e 00000000";
    assert_eq!(frame, hex(expected));
}

#[test]
fn a_snappy_stream_is_what_the_java_client_writes() {
    let stream = compress(Codec::Snappy, b"no repetition");
    let expected = "82534e4150505900 00000001 00000001 0000000f 0d30 6e6f2072657065746974696f6e";
    assert_eq!(stream, hex(expected));
    // 70,000 bytes are three blocks of at most 32 KiB.
    let stream = compress(Codec::Snappy, &vec![7; 70_000]);
    let mut blocks = 0;
    let mut at = 16;
    while at < stream.len() {
        at += 4 + u32::from_be_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
        blocks += 1;
    }
    assert_eq!((blocks, at), (3, stream.len()));
}

#[test]
fn lz4_checksums_are_looked_at() {
    let frame = hex(FOREIGN[7].2);
    let block_checksum = frame.len() - 12;
    for (at, fault) in [
        (6, "the frame header's checksum is wrong"),
        (14, "the frame header's checksum is wrong"),
        (block_checksum, "a block's checksum is wrong"),
        (frame.len() - 1, "the content's checksum is wrong"),
    ] {
        let mut damaged_frame = frame.clone();
        damaged_frame[at] ^= 1;
        let expected = Err(CompressionError::Damaged { codec: Codec::Lz4, fault });
        assert_eq!(decompress(Codec::Lz4, &damaged_frame, LIMIT), expected);
    }
}

#[test]
fn a_tiny_frame_with_a_huge_claim_is_refused_before_memory_is_taken() {
    // A snappy block that claims 4 GiB − 1 and holds three bytes.
    let claim = hex("ffffffff0f 000000");
    let expected =
        CompressionError::Damaged { codec: Codec::Snappy, fault: "a block does not decode" };
    assert_eq!(decompress(Codec::Snappy, &claim, usize::MAX), Err(expected));
    // A zstd frame that claims 2^62 bytes.
    let claim = hex("28b52ffd e0 0000000000000040 010000");
    let expected = CompressionError::TooLarge { codec: Codec::Zstd, limit: LIMIT };
    assert_eq!(decompress(Codec::Zstd, &claim, LIMIT), Err(expected));
}

#[test]
fn every_level_is_read_back() {
    let text = golden_text();
    for level in 0..=9 {
        let bytes = compress(Compression::Gzip { level }, &text);
        assert_eq!(decompress(Codec::Gzip, &bytes, LIMIT).as_ref(), Ok(&text));
    }
    for level in [-7, 1, 3, 22] {
        let bytes = compress(Compression::Zstd { level }, &text);
        assert_eq!(decompress(Codec::Zstd, &bytes, LIMIT).as_ref(), Ok(&text));
    }
}

#[test]
fn codecs_are_named_as_compression_type_names_them() {
    assert_eq!(
        Codec::ALL.map(|codec| codec.to_string()),
        ["none", "gzip", "snappy", "lz4", "zstd"]
    );
    for codec in Codec::ALL {
        assert_eq!(Codec::from_id(codec.id()), Some(codec));
        assert_eq!(Compression::from(codec).codec(), codec);
    }
    assert_eq!(Codec::from_id(5), None);
    assert_eq!(Codec::from_id(-1), None);
}

/// Bytes with and without repetition, of sizes around the blocks of the codecs.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![0..300usize, 32_700..32_800usize, 65_500..65_600usize, 0..200_000usize];
    (sizes, any::<u64>(), 1..256u64).prop_map(|(size, seed, period)| {
        let word = |i: u64| (i % (period * period)).wrapping_mul(seed | 1).rotate_left(23) as u8;
        (0..size as u64).map(word).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_is_read_back(content in content()) {
        for codec in Codec::ALL {
            let bytes = compress(codec, &content);
            prop_assert_eq!(decompress(codec, &bytes, content.len()), Ok(content.clone()));
        }
    }

    #[test]
    fn damage_never_panics_nor_exceeds_the_limit(
        content in vec(0..4u8, 1..3000),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        for codec in COMPRESSED {
            let mut bytes = compress(codec, &content);
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(output) = decompress(codec, &bytes, 5000) {
                prop_assert!(output.len() <= 5000);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), framed in any::<bool>()) {
        let heads: [&[u8]; 5] = [
            b"",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
            b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
            b"\x04\x22\x4d\x18\x60\x40\x82",
            b"\x28\xb5\x2f\xfd",
        ];
        for codec in Codec::ALL {
            let head = if framed { heads[codec.id() as usize] } else { b"" };
            if let Ok(output) = decompress(codec, &[head, &bytes].concat(), 100_000) {
                prop_assert!(output.len() <= 100_000);
            }
        }
    }
}
