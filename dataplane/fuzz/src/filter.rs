//! Any classic BPF program that a capture's client may send, over any frame: refused, or it ends and
//! says what a second reading of the machine's description says.
//!
//! ```text
//!  count of instructions | count times: code u16, jt u8, jf u8, k u32 (struct sock_filter) | frame
//! ```

use forward::{FILTER_INSTRUCTIONS_MAX, Filter, FilterInstruction};

use crate::cursor::Cursor;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    let count = usize::from(input.u8());
    let mut program = Vec::new();
    while program.len() < count && !input.is_empty() {
        let (code, if_true, if_false, k) = (input.u16(), input.u8(), input.u8(), input.u32());
        program.push(FilterInstruction { code, if_true, if_false, k });
    }
    let frame = input.rest();
    match Filter::new(program.clone()) {
        Ok(filter) => {
            let taken = interpret(&program, frame).is_some_and(|taken| taken != 0);
            assert_eq!(filter.matches(frame), taken, "{program:?} over {frame:02x?}");
            // The largest frame, and the smallest.
            let _ = filter.matches(&[]);
            let _ = filter.matches(&[0xff; 4096]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(count < FILTER_INSTRUCTIONS_MAX);
}

/// McCanne and Jacobson's machine once more, in 64 bits and by the words of their paper. `None`: a load
/// behind the end, or a division by zero.
fn interpret(program: &[FilterInstruction], frame: &[u8]) -> Option<u32> {
    let load = |at: u64, size: u64| {
        let bytes = frame.get(usize::try_from(at).ok()?..usize::try_from(at + size).ok()?)?;
        Some(bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (mut a, mut x, mut memory) = (0_u64, 0_u64, [0_u64; 16]);
    let mut at = 0;
    for _ in 0..program.len() {
        let FilterInstruction { code, if_true, if_false, k } = *program.get(at)?;
        let (class, mode, k) = (code & 7, code & 0xe0, u64::from(k));
        at += 1;
        let operand = if code & 8 == 0 { k } else { x };
        match class {
            0 | 1 => {
                let size = [4, 2, 1][usize::from(code >> 3 & 3)];
                let value = match mode {
                    0x00 => k,
                    0x20 => load(k, size)?,
                    0x40 => load(Some(x + k).filter(|at| *at <= u64::from(u32::MAX))?, size)?,
                    0x60 => memory[k as usize],
                    0x80 => frame.len() as u64,
                    _ => 4 * (load(k, 1)? & 15),
                };
                *(if class == 0 { &mut a } else { &mut x }) = value;
            }
            2 => memory[k as usize] = a,
            3 => memory[k as usize] = x,
            4 => {
                a = match code & 0xf0 {
                    0x00 => a + operand,
                    0x10 => a + (1 << 32) - operand,
                    0x20 => a.wrapping_mul(operand),
                    0x30 => a.checked_div(operand)?,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a
                        .checked_shl(u32::try_from(operand).ok()?)
                        .filter(|_| operand < 32)
                        .unwrap_or(0),
                    0x70 => a
                        .checked_shr(u32::try_from(operand).ok()?)
                        .filter(|_| operand < 32)
                        .unwrap_or(0),
                    0x80 => (1 << 32) - a,
                    0x90 => a.checked_rem(operand)?,
                    _ => a ^ operand,
                } & u64::from(u32::MAX);
            }
            5 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at += usize::try_from(k).ok()?;
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    _ => a & operand != 0,
                };
                at += usize::from(if holds { if_true } else { if_false });
            }
            6 => return u32::try_from(if code & 0x10 == 0 { k } else { a }).ok(),
            _ if code & 0x80 == 0 => x = a,
            _ => a = x,
        }
    }
    unreachable!("a checked program returns")
}
