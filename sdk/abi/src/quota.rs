//! What `quota_open`, `quota_batch` and `quota_leave` answer.

/// The most members of all quotas of a plugin together: some 500 MB.
pub const MEMBERS_IN_ALL_MAX: u32 = 1 << 23;

/// What `quota_open` returns besides handles.
pub mod open_error {
    /// It was not called by `sluice_configure`.
    pub const NOT_CONFIGURING: i32 = -1;
    /// The budget is not from 1 to 2^31 - 1.
    pub const BUDGET: i32 = -2;
    /// The number of members is not from 1 to 2^22, or with those of the quotas opened before it is more than
    /// [`MEMBERS_IN_ALL_MAX`](super::MEMBERS_IN_ALL_MAX).
    pub const MEMBERS: i32 = -3;
    /// The lifetime is not from 1 ms to a day.
    pub const LIFETIME: i32 = -4;
    /// The plugin has opened all the quotas that it may.
    pub const TOO_MANY: i32 = -5;
}

/// What `quota_batch` writes for each pair.
pub mod answer {
    /// The group's budget is used up.
    pub const FULL: u8 = 0;
    /// The member was admitted before, or is now.
    pub const ADMITTED: u8 = 1;
    /// It cannot be remembered, and counts against nothing.
    pub const NO_ROOM: u8 = 2;
}

/// What `quota_leave` writes for each pair.
pub mod departure {
    /// The member was not in its group.
    pub const ABSENT: u8 = 0;
    /// It was, and has left: its budget has returned.
    pub const LEFT: u8 = 1;
    /// A worker was interrupted in the middle of a change. Nothing has changed: if the member is in, it
    /// stays until it leaves or its lifetime is over.
    pub const BUSY: u8 = 2;
}
