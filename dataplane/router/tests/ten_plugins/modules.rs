//! Modules to put in the place of others: sound ones that differ in their bytes alone, and hostile ones.

/// All that the router asks of a plugin, with what is different about each: the ABI's version, what `configure`
/// does, and what becomes of a packet to port 7, whose position is `$i`. Descriptors lie at 0x400, verdicts at
/// 0x8000.
const FRAME: &str = r#"(module
    (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"hostile\"\nhooks = [\"ingress\", \"forward\", \"egress\"]\nmemory_max_bytes = 1048576\n")
    (memory (export "memory") 1)
    (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
    (func (export "sluice_abi_version") (result i32) i32.const VERSION)
    (func (export "sluice_layout") (result i32) i32.const 16)
    (func (export "sluice_configure") (param i32) (result i32) CONFIGURE i32.const 0)
    (func (export "sluice_process") (param $n i32) (param $now i64) (local $i i32)
      (block $end (loop $next
        (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
        (if (i32.eq (i32.const 7) (i32.load16_u offset=34
              (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
          (then PACKET))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))))"#;

/// How many kinds of modules there are that are loaded and then do harm, at packets to port 7.
pub(crate) const HARMFUL: usize = 4;

/// How many kinds there are that must be refused.
pub(crate) const REFUSED: usize = 3;

fn module(version: &str, configure: &str, packet: &str) -> Vec<u8> {
    let text = FRAME.replace("VERSION", version).replace("CONFIGURE", configure);
    wat::parse_str(text.replace("PACKET", packet)).expect("a module")
}

/// A module that gives up, never ends, answers nonsense or reaches beyond its memory.
pub(crate) fn harmful(kind: usize) -> Vec<u8> {
    let packet = match kind % HARMFUL {
        0 => "unreachable",
        1 => "(loop $for_ever (br $for_ever))",
        2 => {
            "(i64.store (i32.add (i32.const 32768) (i32.shl (local.get $i) (i32.const 3)))
               (i64.const 0xdeadbeefdeadbeef))"
        }
        _ => "(drop (i32.load (i32.const -4)))",
    };
    module("0x10000", "", packet)
}

/// A module that fails at its configuration, one of another ABI, and none at all.
pub(crate) fn refused(kind: usize) -> Vec<u8> {
    match kind % REFUSED {
        0 => module("0x10000", "unreachable", ""),
        1 => module("0x20000", "", ""),
        _ => b"\0asm and then nothing that makes sense".to_vec(),
    }
}

/// The same module with other bytes: a custom section behind it says nothing to anybody (WebAssembly core
/// specification 2.0, section 5.5.3).
pub(crate) fn version(module: &[u8], number: u32) -> Vec<u8> {
    // Id 0, size, then the length of the name and the name; all sizes are below 128, one byte.
    [module, &[0, 12, 7], b"version", &number.to_le_bytes()].concat()
}
