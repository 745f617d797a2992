//! Links the functions at a fixed address. Whatever may lie anywhere carries a table of every
//! place to be mended when it is loaded: half a megabyte of each function, mended at each cold
//! start before its first line runs. What is given up is that the program's own image lies
//! elsewhere each time; stack, heap and libraries still do, and no code here is `unsafe`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_AWS").is_some() {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
