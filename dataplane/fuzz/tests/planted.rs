//! Each planted defect is found by its target: an input of the corpus, changed at random, makes it panic,
//! and the same input does not without the defect.
//!
//! A poor man's libFuzzer, without coverage, from a fixed seed: what it finds in these few thousand inputs,
//! libFuzzer finds in less. To see that one do it: a target that plants a defect in its program,
//! `fuzz::planted::plant(Some(..))` in `fuzz_targets/NAME.rs`, and `cargo xtask fuzz NAME`.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use fuzz::TARGETS;
use fuzz::planted::{Defect, plant};

/// Inputs that are tried for each defect.
const TRIES: usize = 20_000;

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

/// One input, or the front of one and the end of another, with some bytes changed.
fn change(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    if random.below(4) == 0 {
        let other = &corpus[random.below(corpus.len())];
        input.truncate(random.below(input.len() + 1));
        input.extend_from_slice(&other[random.below(other.len() + 1)..]);
    }
    for _ in 0..random.below(5) {
        if input.is_empty() {
            break;
        }
        let at = random.below(input.len());
        match random.below(4) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.below(256) as u8,
            2 => _ = input.remove(at),
            _ => input.insert(at, random.below(256) as u8),
        }
    }
    input
}

fn panics(target: fuzz::Target, input: &[u8]) -> bool {
    panic::catch_unwind(AssertUnwindSafe(|| target(input))).is_err()
}

#[test]
fn every_planted_defect_is_found() {
    // Thousands of inputs, and the one panic that is looked for says nothing new.
    panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (defect, name) in Defect::ALL {
        let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
        let (corpus, mut random) = (corpus(name), Random(1));
        plant(Some(defect));
        let found = (0..TRIES).find_map(|tries| {
            // First the corpus as it is: what was found once is not to be found again.
            let input = corpus.get(tries).cloned();
            let input = input.unwrap_or_else(|| change(&corpus, &mut random));
            panics(*target, &input).then_some((tries, input))
        });
        plant(None);
        match found {
            Some((tries, input)) => {
                println!("{defect:?}: {name} found it with input {tries}, {} bytes", input.len());
                if panics(*target, &input) {
                    missed.push(format!("{defect:?}: {name} fails without it: {input:02x?}"));
                }
            }
            None => missed.push(format!("{defect:?}: {name} found nothing in {TRIES} inputs")),
        }
    }
    let _ = panic::take_hook();
    assert!(missed.is_empty(), "{missed:#?}");
}
