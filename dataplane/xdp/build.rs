//! Compiles the classifier to BPF. The program needs no header of the system, only a clang that knows
//! the target, so that any clang from 11 on and any distribution will do.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let source = "src/classifier/classifier.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-env-changed=CLANG");

    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let object = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("classifier.o");
    let big_endian = env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big");
    let status = Command::new(&clang)
        .args(["-target", if big_endian { "bpfeb" } else { "bpfel" }])
        // BTF comes from the debug information; the maps are described in it. Paths of the build
        // machine do not belong into it.
        .args(["-g", &format!("-fdebug-prefix-map={directory}=.")])
        .args(["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-nostdinc", "-c", source, "-o"])
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("`{clang} -target bpf` could not compile {source} ({status})")),
        Err(error) => fail(&format!(
            "the XDP classifier needs clang to be compiled, but `{clang}` does not run ({error}); \
             install it (`apt-get install clang`) or name it with CLANG=/path/to/clang"
        )),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
