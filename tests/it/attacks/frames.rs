//! Floods of frames.

use std::time::Duration;

use super::Besieged;
use super::wire::{
    Attacker, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, POST, RST_STREAM, frame, header,
};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Sends `frames` for each of `streams` streams, a thousand over each connection, and returns how
/// each connection was ended.
async fn flood(
    besieged: &Besieged,
    streams: u32,
    frames: impl Fn(u32) -> Vec<u8>,
) -> Vec<Option<u32>> {
    let mut ends = Vec::new();
    for _ in 0..streams / 1_000 {
        let mut attacker = Attacker::connect(besieged.binary.address).await;
        let all: Vec<u8> = (0..1_000).flat_map(|number| frames(2 * number + 1)).collect();
        attacker.send(&all).await;
        ends.push(attacker.goodbye().await);
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_rapid_resets_are_cut_off() {
    let besieged = Besieged::start().await;
    let reset = |id| {
        let cancel = frame(RST_STREAM, 0, id, &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, id, POST), cancel].concat()
    };
    let ends = besieged.under(flood(&besieged, 100_000, reset)).await;
    // Hanging up on bytes that are still unread can overtake the last word.
    let calmed = ends.iter().filter(|end| **end == Some(ENHANCE_YOUR_CALM)).count();
    assert!(calmed > 0 && ends.iter().all(|end| end.is_none_or(|e| e == ENHANCE_YOUR_CALM)));
    println!("{calmed} of {} connections heard why", ends.len());
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_malformed_requests_on_a_connection_end_it() {
    let besieged = Besieged::start().await;
    let malformed = |id| frame(HEADERS, END_HEADERS | END_STREAM, id, b"\x82\x82");
    let attack = async {
        let mut attacker = Attacker::connect(besieged.binary.address).await;
        for number in 0..5_000 {
            if !attacker.send(&malformed(2 * number + 1)).await {
                break;
            }
        }
        attacker.goodbye().await
    };
    assert_eq!(besieged.under(attack).await, Some(ENHANCE_YOUR_CALM));
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_continuations_is_cut_off_long_before_it_is_held() {
    let besieged = Besieged::start().await;
    for payload in [header(16_000), vec![]] {
        let attack = async {
            let mut attacker = Attacker::connect(besieged.binary.address).await;
            let mut sent: usize = 0;
            let mut going = attacker.send(&frame(HEADERS, 0, 1, POST)).await;
            while going && sent < 200_000 {
                going = attacker.send(&frame(CONTINUATION, 0, 1, &payload)).await;
                sent += 1;
            }
            assert!(!going, "all of {sent} frames were taken");
            attacker.goodbye().await
        };
        let end = besieged.under(attack).await;
        assert!(end.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{end:?}");
    }
    besieged.stands(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_data_is_cut_off() {
    let besieged = Besieged::start().await;
    let attack = async {
        let mut attacker = Attacker::connect(besieged.binary.address).await;
        let mut going = attacker.send(&frame(HEADERS, END_HEADERS, 1, POST)).await;
        let empty = frame(DATA, 0, 1, &[]).repeat(100);
        let mut sent = 0;
        while going && sent < 1_000_000 {
            going = attacker.send(&empty).await;
            sent += 100;
        }
        (going, attacker.goodbye().await)
    };
    let (going, end) = besieged.under(attack).await;
    assert!(!going, "all of them were taken");
    assert!(end.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{end:?}");
    besieged.stands(Duration::from_secs(10)).await;
}
