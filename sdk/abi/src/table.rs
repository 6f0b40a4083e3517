//! What `table_open` returns.

/// What `table_open` returns besides handles.
pub mod open_error {
    /// It was not called by `sluice_configure`.
    pub const NOT_CONFIGURING: i32 = -1;
    /// The manifest names no such table.
    pub const UNKNOWN: i32 = -2;
}
