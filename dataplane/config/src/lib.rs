//! Configuration: TOML to raw to checked, and the difference of two.
