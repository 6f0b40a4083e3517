//! Compiles the XDP programs to BPF: the classifier, and those of the tester. They need no header of
//! the system, only a clang that knows the target, so that any clang from 12 on and any distribution
//! will do.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The programs, and the instruction set of each: the classifier runs on kernels that know only the
/// oldest, while the tester needs newer kernels anyway, and the sink the atomics of version 3.
const PROGRAMS: [(&str, &str); 4] = [
    ("src/classifier/classifier.c", "v1"),
    ("src/tester/inject.c", "v3"),
    ("src/tester/sink.c", "v3"),
    ("src/tester/redirect.c", "v1"),
];

fn main() {
    println!("cargo:rerun-if-env-changed=CLANG");
    println!("cargo:rerun-if-changed=src/tester/bpf.h");

    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let big_endian = env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big");
    for (source, instructions) in PROGRAMS {
        println!("cargo:rerun-if-changed={source}");
        let name = Path::new(source).with_extension("o");
        let object = out.join(name.file_name().expect("a source has a name"));
        let status = Command::new(&clang)
            .args(["-target", if big_endian { "bpfeb" } else { "bpfel" }])
            .arg(format!("-mcpu={instructions}"))
            // BTF comes from the debug information; the maps are described in it. Paths of the build
            // machine do not belong into it.
            .args(["-g", &format!("-fdebug-prefix-map={directory}=.")])
            .args(["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-nostdinc"])
            .args(["-c", source, "-o"])
            .arg(&object)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                fail(&format!("`{clang} -target bpf` could not compile {source} ({status})"))
            }
            Err(error) => fail(&format!(
                "the XDP programs need clang to be compiled, but `{clang}` does not run ({error}); \
                 install it (`apt-get install clang`) or name it with CLANG=/path/to/clang"
            )),
        }
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
