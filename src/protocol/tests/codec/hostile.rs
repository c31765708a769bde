//! Bytes that no honest peer sends: they are refused, cheaply.

use bytes::Bytes;
use chronik_protocol::{ApiKey, DecodeErrorKind, RequestFrame};

use crate::allocations::peak_of;
use crate::parse::Role;
use crate::sample::{Rng, Shape, sample, sample_with_arrays};
use crate::subject::subjects;

/// Bytes that decoding may hold for each byte of input, see the head of `reader.rs`.
const FACTOR_MAX: usize = 80;

/// The same for requests, which strangers send.
const REQUEST_FACTOR_MAX: usize = 60;

/// What any decoding may hold: an error or a first small array.
const BASE_BYTES: usize = 4096;

#[test]
fn huge_array_count_is_refused_and_costs_nothing() {
    let mut arrays = 0;
    for subject in subjects() {
        for version in subject.versions() {
            let (bytes, counts) = sample_with_arrays(&subject.message, version, Shape::Full, 1);
            for count in counts {
                let mut bomb = bytes[..count.offset].to_vec();
                let huge: &[u8] = if count.compact {
                    &[0xff, 0xff, 0xff, 0xff, 0x0f]
                } else {
                    &[0x7f, 0xff, 0xff, 0xff]
                };
                bomb.extend(huge);
                bomb.extend([0; 8]);
                let bomb = Bytes::from(bomb);
                let (result, peak) = peak_of(|| subject.decode(&bomb, version));
                let label = format!("{} v{version} {count:?}", subject.message.name);
                let kind = result.expect_err(&label).kind;
                assert!(matches!(kind, DecodeErrorKind::CountTooLarge { .. }), "{label}: {kind:?}");
                assert!(peak <= FACTOR_MAX * bomb.len() + BASE_BYTES, "{label}: {peak} bytes");
                arrays += 1;
            }
        }
    }
    assert!(arrays > 1000, "only {arrays} arrays");
}

#[test]
fn tiny_frame_with_a_huge_count_is_refused_for_every_api() {
    for api in ApiKey::ALL {
        for version in api.valid_versions().iter() {
            let mut frame = Vec::new();
            frame.extend(api.key().to_be_bytes());
            frame.extend(version.to_be_bytes());
            frame.extend(7i32.to_be_bytes());
            frame.extend((-1i16).to_be_bytes());
            if api.request_header_version(version) == 2 {
                frame.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
            } else {
                frame.extend([0x7f, 0xff, 0xff, 0xff]);
            }
            let frame = Bytes::from(frame);
            let (result, peak) =
                peak_of(|| RequestFrame::parse(frame).and_then(RequestFrame::decode_any));
            assert!(result.is_err(), "{api} v{version}: {result:?}");
            // Sharing the frame for the first time costs one small counter.
            assert!(peak <= 64, "{api} v{version}: {peak} bytes");
        }
    }
}

/// Arrays as long as the count check lets them be, filled with the cheapest elements.
#[test]
fn memory_stays_within_a_constant_factor_of_the_input() {
    let fills: [&[u8]; 5] = [&[0], &[1], &[1, 0], &[0, 1], &[1, 1, 0]];
    let mut worst = [(0, String::new()), (0, String::new())];
    for subject in subjects() {
        for version in subject.versions() {
            let (bytes, counts) = sample_with_arrays(&subject.message, version, Shape::Full, 1);
            for count in counts {
                for fill in fills {
                    for elements in [500u32, 2000, 8000] {
                        let mut frame = bytes[..count.offset].to_vec();
                        if count.compact {
                            frame.extend([elements as u8 | 0x80, (elements >> 7) as u8]);
                        } else {
                            frame.extend(elements.to_be_bytes());
                        }
                        frame.extend(fill.iter().cycle().take(8192));
                        let frame = Bytes::from(frame);
                        let (_, peak) = peak_of(|| subject.decode(&frame, version));
                        let factor = peak.saturating_sub(BASE_BYTES) / frame.len();
                        let worst = &mut worst[usize::from(subject.message.role == Role::Request)];
                        if factor > worst.0 {
                            *worst = (factor, format!("{} v{version}", subject.message.name));
                        }
                    }
                }
            }
        }
    }
    let [others, requests] = worst;
    assert!(others.0 <= FACTOR_MAX, "{others:?}");
    assert!(requests.0 <= REQUEST_FACTOR_MAX, "{requests:?}");
    assert!(requests.0 >= 5, "the frames are too tame to show anything: {requests:?}");
}

#[test]
fn every_truncation_of_every_message_is_refused() {
    for subject in subjects() {
        for version in subject.versions() {
            let bytes = Bytes::from(sample(&subject.message, version, Shape::Full, 0));
            for length in 0..bytes.len() {
                let result = subject.decode(&bytes.slice(..length), version);
                let name = &subject.message.name;
                assert!(result.is_err(), "{name} v{version} cut to {length}: {result:?}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            let error = subject.decode(&longer.into(), version).expect_err("a byte is left");
            assert_eq!(error.kind, DecodeErrorKind::TrailingBytes(1));
        }
    }
}

#[test]
fn what_decodes_from_random_bytes_also_encodes() {
    let mut rng = Rng(0x5eed);
    let mut decoded = 0;
    for subject in subjects() {
        for version in subject.versions() {
            for round in 0..60 {
                let mut bytes = sample(&subject.message, version, Shape::Mixed, round);
                if round % 2 == 0 {
                    bytes = (0..rng.below(80)).map(|_| rng.next() as u8).collect();
                } else if !bytes.is_empty() {
                    for _ in 0..1 + rng.below(3) {
                        let at = rng.below(bytes.len());
                        bytes[at] = rng.next() as u8;
                    }
                }
                let bytes = Bytes::from(bytes);
                let Ok(value) = subject.decode(&bytes, version) else { continue };
                decoded += 1;
                let name = &subject.message.name;
                let label = format!("{name} v{version} round {round}: {bytes:?}");
                let once = value.encode(version).expect(&label);
                let again = subject.decode(&once, version).expect(&label);
                // Bytes, since a NaN does not equal itself.
                assert_eq!(again.encode(version), Ok(once), "{label}");
            }
        }
    }
    assert!(decoded > 1000, "only {decoded} inputs decoded");
}

#[test]
fn random_frames_never_panic() {
    let mut rng = Rng(0xf4a3e);
    for round in 0..20_000 {
        let mut frame: Vec<u8> = (0..rng.below(64)).map(|_| rng.next() as u8).collect();
        // Most keys and versions would otherwise be refused before anything interesting.
        if frame.len() >= 4 && round % 4 != 0 {
            frame[0] = 0;
            frame[1] %= 96;
            frame[2] = 0;
            frame[3] %= 14;
        }
        let _ = RequestFrame::parse(frame.into()).and_then(RequestFrame::decode_any);
    }
}

#[test]
fn requests_of_all_apis_are_among_the_subjects() {
    let requests = subjects().iter().filter(|s| s.message.role == Role::Request).count();
    assert_eq!(requests, ApiKey::ALL.len());
}
