//! Small plugins in the text format of WebAssembly.

/// Where the layout lies.
const LAYOUT: u32 = 16;
/// Where the descriptors lie.
const DESCRIPTORS: u32 = 65_536;
/// Where the verdicts lie.
const VERDICTS: u32 = 131_072;
/// Where the edits lie, if there are any.
const EDITS: u32 = 163_840;

/// A module without a manifest, which appends one. Its `sluice_process` takes the first 8 bytes of each
/// descriptor, the beginning of the source address, for its verdict; and gives up where the 16 bytes of
/// the destination address of the first packet are all ones. With a stride for edits, the destination
/// address is the packet's edit.
pub(crate) fn module(
    descriptor_stride: u32,
    verdict_stride: u32,
    edit_stride: Option<u32>,
) -> Vec<u8> {
    let (edits, edit_stride) = edit_stride.map_or((0, 0), |stride| (EDITS, stride));
    let copy_edit = if edits == 0 {
        String::new()
    } else {
        format!(
            "(memory.copy
               (i32.add (i32.const {EDITS}) (i32.mul (local.get $i) (i32.const {edit_stride})))
               (i32.add (i32.const {DESCRIPTORS})
                 (i32.add (i32.const 16) (i32.mul (local.get $i) (i32.const {descriptor_stride}))))
               (i32.const 16))"
        )
    };
    let layout = [
        80,
        256,
        DESCRIPTORS,
        descriptor_stride,
        VERDICTS,
        verdict_stride,
        40_960,
        4096,
        49_152,
        256,
        57_344,
        2,
        edits,
        edit_stride,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    let layout: String = layout
        .iter()
        .flat_map(|field: &u32| field.to_le_bytes())
        .map(|b| format!("\\{b:02x}"))
        .collect();
    let text = format!(
        r#"(module (memory (export "memory") 3) (data (i32.const {LAYOUT}) "{layout}")
         (func (export "sluice_abi_version") (result i32) i32.const 0x10000)
         (func (export "sluice_layout") (result i32) i32.const {LAYOUT})
         (func (export "sluice_configure") (param i32) (result i32) i32.const 0)
         (func (export "sluice_process") (param $n i32) (param $now i64) (local $i i32)
           (if (i32.and (i32.ne (local.get $n) (i32.const 0))
               (i64.eq (i64.and (i64.load (i32.const {first})) (i64.load (i32.const {second})))
                 (i64.const -1))) (then unreachable))
           (block $end (loop $next
             (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
             (i64.store
               (i32.add (i32.const {VERDICTS}) (i32.mul (local.get $i) (i32.const {verdict_stride})))
               (i64.load (i32.add (i32.const {DESCRIPTORS})
                 (i32.mul (local.get $i) (i32.const {descriptor_stride})))))
             {copy_edit}
             (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br $next)))))"#,
        first = DESCRIPTORS + 16,
        second = DESCRIPTORS + 24,
    );
    wat::parse_str(&text).expect("the text of a module")
}

/// A module with `manifest` behind it in its custom section.
pub(crate) fn with_manifest(mut module: Vec<u8>, manifest: &[u8]) -> Vec<u8> {
    let name = sluice_abi::MANIFEST_SECTION.as_bytes();
    let name_len = u8::try_from(name.len()).expect("a short name");
    module.push(0);
    leb128(&mut module, 1 + name.len() + manifest.len());
    module.push(name_len);
    module.extend(name);
    module.extend(manifest);
    module
}

fn leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
