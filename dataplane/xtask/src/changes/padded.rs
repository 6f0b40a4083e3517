//! [`module`]: a plugin of any size that lets every packet pass. What makes it large is code, which has to
//! be compiled, not data.

use std::fmt::Write as _;

use anyhow::{Context, Result};

/// Bytes of one function of padding, about.
const FUNCTION_BYTES: usize = 1000;
/// Bytes of one step of such a function.
const STEP_BYTES: usize = 20;

/// All that the router asks of a plugin. The addresses are those of `sdk/ABI.md`'s layout: descriptors at
/// 0x400, verdicts at 0x8000, configuration at 0xa000, errors at 0xc000.
const PLUGIN: &str = r#"(module
  (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"padded\"\nhooks = [\"ingress\"]\n")
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param i32) (result i32) (i32.const 0))
  (func (export "sluice_process") (param i32 i64))
"#;

/// A module of about `bytes`.
///
/// # Errors
/// Never for what this makes; an error says where the text is no module.
pub fn module(bytes: usize) -> Result<Vec<u8>> {
    let mut text = PLUGIN.to_owned();
    for function in 0..bytes / FUNCTION_BYTES {
        text += "(func (param i32) (result i32) local.get 0\n";
        for step in 0..FUNCTION_BYTES / STEP_BYTES {
            // Constants that take five bytes each, and that no two steps have in common.
            let odd = (function * 7919 + step * 104_729) % 100_000_000 * 2 + 500_000_001;
            let _ = writeln!(
                text,
                "i32.const {odd} i32.mul local.get 0 i32.xor i32.const {} i32.add i32.popcnt",
                odd / 3 + 300_000_000
            );
        }
        text += ")\n";
    }
    text += ")";
    wat::parse_str(&text).context("a plugin with padding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_large_as_it_is_asked_to_be() {
        for bytes in [13_000, 1_000_000] {
            let len = module(bytes).expect("a module").len();
            assert!((bytes * 8 / 10..bytes * 12 / 10).contains(&len), "{len} for {bytes}");
        }
    }
}
