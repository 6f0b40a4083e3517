//! [`Filter`]: a classic BPF program, such as libpcap compiles from `udp port 53`, run over a frame.
//!
//! The machine of McCanne and Jacobson (The BSD Packet Filter, USENIX 1993): an accumulator, an index
//! register, 16 words of scratch memory, forward jumps only. Programs come from outside: [`Filter::new`]
//! checks what Linux checks (`bpf_check_classic` of net/core/filter.c), after which a run ends, reads
//! nothing outside the frame, and cannot fail.

/// Words of scratch memory (`BPF_MEMWORDS`).
const MEMORY_WORDS: usize = 16;

/// The most instructions of a program (`BPF_MAXINSNS`).
pub const FILTER_INSTRUCTIONS_MAX: usize = 4096;

/// One instruction (`struct sock_filter` of linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterInstruction {
    /// What it does: class, size, mode, operation, source.
    pub code: u16,
    /// How many instructions a jump skips when its comparison holds.
    pub if_true: u8,
    /// How many it skips when it does not.
    pub if_false: u8,
    /// The constant.
    pub k: u32,
}

/// Why a program is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No instruction, or too many.
    #[error("a filter has 1 to {FILTER_INSTRUCTIONS_MAX} instructions, not {0}")]
    Length(usize),
    /// An instruction that the machine does not have.
    #[error("instruction {0} has the unknown code {1:#06x}")]
    Code(usize, u16),
    /// A jump leads behind the end.
    #[error("instruction {0} jumps behind the end of the program")]
    Jump(usize),
    /// Scratch memory that is not there, a division by zero, or a shift by more than 31.
    #[error("instruction {0} has a constant out of range: {1}")]
    Constant(usize, u32),
    /// The last instruction does not return.
    #[error("the program does not end with a return")]
    End,
}

/// A checked program. It judges frames from their Ethernet header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Box<[FilterInstruction]>,
}

// Classes, sizes, modes, operations and sources, as in linux/bpf_common.h.
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
const X: u16 = 0x08;
const K: u16 = 0x00;
const A: u16 = 0x10;
const TAX: u16 = 0x00;
const TXA: u16 = 0x80;
const LD_W_IMM: u16 = LD | W | IMM;
const LDX_W_IMM: u16 = LDX | W | IMM;
const LD_MEM: u16 = LD | MEM;
const LDX_MEM: u16 = LDX | MEM;
const LD_LEN: u16 = LD | W | LEN;
const LDX_LEN: u16 = LDX | W | LEN;
const LDX_MSH: u16 = LDX | B | MSH;
const LD_W_ABS: u16 = LD | W | ABS;
const LD_H_ABS: u16 = LD | H | ABS;
const LD_B_ABS: u16 = LD | B | ABS;
const LD_W_IND: u16 = LD | W | IND;
const LD_H_IND: u16 = LD | H | IND;
const LD_B_IND: u16 = LD | B | IND;
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;
const RET_K: u16 = RET | K;
const RET_A: u16 = RET | A;
const MISC_TAX: u16 = MISC | TAX;
const MISC_TXA: u16 = MISC | TXA;

const CLASS: u16 = 0x07;
const OPERATION: u16 = 0xf0;

impl Filter {
    /// Checks a program.
    ///
    /// # Errors
    /// [`FilterError`] names the first instruction that could do harm.
    pub fn new(program: Vec<FilterInstruction>) -> Result<Self, FilterError> {
        let len = program.len();
        if len == 0 || len > FILTER_INSTRUCTIONS_MAX {
            return Err(FilterError::Length(len));
        }
        for (at, instruction) in program.iter().enumerate() {
            check(at, len, *instruction)?;
        }
        match program.last() {
            Some(last) if matches!(last.code, RET_K | RET_A) => {
                Ok(Self { program: program.into() })
            }
            _ => Err(FilterError::End),
        }
    }

    /// Whether the program takes the frame. A load from behind the frame's end refuses it, as in the
    /// kernel and in libpcap.
    #[must_use]
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.run(frame).is_some_and(|taken| taken != 0)
    }

    /// What the program returns; `None` where it read behind the end, or divided by zero.
    fn run(&self, frame: &[u8]) -> Option<u32> {
        let (mut a, mut x) = (0_u32, 0_u32);
        let mut memory = [0_u32; MEMORY_WORDS];
        let mut at = 0_usize;
        // Jumps lead forward only, so that each instruction runs at most once.
        loop {
            let FilterInstruction { code, if_true, if_false, k } = *self.program.get(at)?;
            at += 1;
            match code {
                LD_W_ABS => a = word(frame, k)?,
                LD_H_ABS => a = half(frame, k)?,
                LD_B_ABS => a = byte(frame, k)?,
                LD_W_IND => a = word(frame, x.checked_add(k)?)?,
                LD_H_IND => a = half(frame, x.checked_add(k)?)?,
                LD_B_IND => a = byte(frame, x.checked_add(k)?)?,
                LD_LEN => a = u32::try_from(frame.len()).ok()?,
                LDX_LEN => x = u32::try_from(frame.len()).ok()?,
                LDX_MSH => x = 4 * (byte(frame, k)? & 0xf),
                LD_W_IMM => a = k,
                LDX_W_IMM => x = k,
                LD_MEM => a = *memory.get(k as usize)?,
                LDX_MEM => x = *memory.get(k as usize)?,
                ST => *memory.get_mut(k as usize)? = a,
                STX => *memory.get_mut(k as usize)? = x,
                RET_K => return Some(k),
                RET_A => return Some(a),
                MISC_TAX => x = a,
                MISC_TXA => a = x,
                _ => {
                    let operand = if code & X == 0 { k } else { x };
                    if code & CLASS == ALU {
                        a = arithmetic(code & OPERATION, a, operand)?;
                    } else if code & OPERATION == JA {
                        at += k as usize;
                    } else {
                        let holds = match code & OPERATION {
                            JEQ => a == operand,
                            JGT => a > operand,
                            JGE => a >= operand,
                            _ => a & operand != 0,
                        };
                        at += usize::from(if holds { if_true } else { if_false });
                    }
                }
            }
        }
    }
}

fn check(at: usize, len: usize, instruction: FilterInstruction) -> Result<(), FilterError> {
    let FilterInstruction { code, if_true, if_false, k } = instruction;
    let constant = |fits: bool| if fits { Ok(()) } else { Err(FilterError::Constant(at, k)) };
    // How many instructions follow.
    let rest = len - at - 1;
    let jump = |skip: u32| {
        if usize::try_from(skip).is_ok_and(|skip| skip < rest) {
            Ok(())
        } else {
            Err(FilterError::Jump(at))
        }
    };
    match code {
        LD_W_ABS | LD_H_ABS | LD_B_ABS | LD_W_IND | LD_H_IND | LD_B_IND | LD_LEN | LDX_LEN
        | LDX_MSH | LD_W_IMM | LDX_W_IMM | RET_K | RET_A | MISC_TAX | MISC_TXA => Ok(()),
        LD_MEM | LDX_MEM | ST | STX => constant((k as usize) < MEMORY_WORDS),
        _ if code & CLASS == ALU && code & !(CLASS | OPERATION | X) == 0 => {
            let by_constant = code & X == 0;
            match code & OPERATION {
                ADD | SUB | MUL | OR | AND | XOR => Ok(()),
                DIV | MOD => constant(!by_constant || k != 0),
                LSH | RSH => constant(!by_constant || k < 32),
                NEG if by_constant => Ok(()),
                _ => Err(FilterError::Code(at, code)),
            }
        }
        _ if code & CLASS == JMP && code & !(CLASS | OPERATION | X) == 0 => {
            match code & OPERATION {
                JA if code & X == 0 => jump(k),
                JEQ | JGT | JGE | JSET => jump(if_true.into()).and_then(|()| jump(if_false.into())),
                _ => Err(FilterError::Code(at, code)),
            }
        }
        _ => Err(FilterError::Code(at, code)),
    }
}

/// `None` for a division by zero. Shifts by more than 31 give 0, as libpcap's interpreter has it.
fn arithmetic(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        MOD => a.checked_rem(operand)?,
        OR => a | operand,
        AND => a & operand,
        XOR => a ^ operand,
        LSH => a.checked_shl(operand).unwrap_or(0),
        RSH => a.checked_shr(operand).unwrap_or(0),
        _ => a.wrapping_neg(),
    })
}

fn word(frame: &[u8], at: u32) -> Option<u32> {
    frame.get(at as usize..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn half(frame: &[u8], at: u32) -> Option<u32> {
    frame.get(at as usize..)?.first_chunk().map(|bytes| u32::from(u16::from_be_bytes(*bytes)))
}

fn byte(frame: &[u8], at: u32) -> Option<u32> {
    frame.get(at as usize).copied().map(u32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(instructions: &[(u16, u8, u8, u32)]) -> Vec<FilterInstruction> {
        let one = |&(code, if_true, if_false, k): &(u16, u8, u8, u32)| FilterInstruction {
            code,
            if_true,
            if_false,
            k,
        };
        instructions.iter().map(one).collect()
    }

    /// What `tcpdump -ddd udp` prints for Ethernet.
    fn udp() -> Vec<FilterInstruction> {
        program(&[
            (40, 0, 0, 12),
            (21, 0, 5, 34525),
            (48, 0, 0, 20),
            (21, 6, 0, 17),
            (21, 0, 6, 44),
            (48, 0, 0, 54),
            (21, 3, 4, 17),
            (21, 0, 3, 2048),
            (48, 0, 0, 23),
            (21, 0, 1, 17),
            (6, 0, 0, 262_144),
            (6, 0, 0, 0),
        ])
    }

    #[test]
    fn a_program_of_tcpdump_takes_what_it_says() {
        let filter = Filter::new(udp()).expect("a sound program");
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[23] = 17;
        assert!(filter.matches(&frame));
        frame[23] = 6;
        assert!(!filter.matches(&frame));
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = 17;
        assert!(filter.matches(&frame));
        assert!(!filter.matches(&frame[..20]), "it ends before the protocol");
        assert!(!filter.matches(&[]));
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        let refused =
            |instructions: &[(u16, u8, u8, u32)]| Filter::new(program(instructions)).err();
        assert_eq!(refused(&[]), Some(FilterError::Length(0)));
        assert_eq!(refused(&[(LD_W_ABS, 0, 0, 0)]), Some(FilterError::End));
        assert_eq!(refused(&[(JMP | JEQ, 0, 1, 0), (RET_K, 0, 0, 0)]), Some(FilterError::Jump(0)));
        assert_eq!(
            refused(&[(JMP | JA, 0, 0, u32::MAX), (RET_K, 0, 0, 0)]),
            Some(FilterError::Jump(0))
        );
        assert_eq!(
            refused(&[(ST, 0, 0, 16), (RET_K, 0, 0, 0)]),
            Some(FilterError::Constant(0, 16))
        );
        assert_eq!(
            refused(&[(ALU | DIV, 0, 0, 0), (RET_K, 0, 0, 0)]),
            Some(FilterError::Constant(0, 0))
        );
        assert_eq!(
            refused(&[(0xffff, 0, 0, 0), (RET_K, 0, 0, 0)]),
            Some(FilterError::Code(0, 0xffff))
        );
    }

    proptest::proptest! {
        /// Whatever program passes the check runs over any frame, and ends.
        #[test]
        fn a_checked_program_ends(
            codes in proptest::collection::vec((0_u16..0xb8, 0_u8..8, 0_u8..8, 0_u32..40), 1..40),
            frame in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
        ) {
            let mut instructions = program(&codes);
            instructions.push(FilterInstruction { code: RET_A, if_true: 0, if_false: 0, k: 0 });
            if let Ok(filter) = Filter::new(instructions) {
                let _taken = filter.matches(&frame);
            }
        }
    }
}
