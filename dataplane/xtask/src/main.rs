//! Set-up, lab, tests and CI, one command each.
fn main() {}
