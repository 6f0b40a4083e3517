//! The host's functions. See `sdk/ABI.md`.
#![expect(unsafe_code, reason = "functions of the host take addresses")]

mod import {
    #[link(wasm_import_module = "sluice")]
    unsafe extern "C" {
        pub(super) fn log(level: i32, text: *const u8, len: usize);
        pub(super) safe fn random() -> u64;
        pub(super) fn name_number(kind: i32, text: *const u8, len: usize) -> i32;
        pub(super) safe fn meter_open(rate_milli: i64, burst: i64, entries: u32) -> i32;
        pub(super) fn meter_batch(
            handle: i32,
            keys: *const [u8; 16],
            n: usize,
            now_ns: u64,
            costs: *const u32,
            results: *mut u8,
        );
        pub(super) fn meter_prefix_batch(
            handle: i32,
            addresses: *const u8,
            stride: usize,
            n: usize,
            len4: u32,
            len6: u32,
            now_ns: u64,
            results: *mut u8,
        );
        pub(super) fn table_open(name: *const u8, len: usize) -> i32;
        pub(super) fn table_word(handle: i32, text: *const u8, len: usize) -> u32;
        pub(super) fn table_batch(
            handle: i32,
            keys: *const u8,
            stride: usize,
            n: usize,
            results: *mut u32,
        );
        pub(super) safe fn quota_open(budget: u32, members: u32, lifetime_ms: u64) -> i32;
        pub(super) fn quota_batch(
            handle: i32,
            groups: *const [u8; 16],
            members: *const [u8; 16],
            n: usize,
            now_ns: u64,
            results: *mut u8,
        );
        pub(super) fn quota_contains(
            handle: i32,
            groups: *const [u8; 16],
            members: *const [u8; 16],
            n: usize,
            now_ns: u64,
            results: *mut u8,
        );
        pub(super) fn quota_leave(
            handle: i32,
            groups: *const [u8; 16],
            members: *const [u8; 16],
            n: usize,
            now_ns: u64,
            results: *mut u8,
        );
    }
}

pub(super) fn log(level: i32, text: &str) {
    // SAFETY: the host reads `text` during the call and keeps no pointer.
    unsafe { import::log(level, text.as_ptr(), text.len()) }
}

pub(super) fn random() -> u64 {
    import::random()
}

pub(super) fn name_number(kind: i32, name: &str) -> i32 {
    // SAFETY: as in `log`.
    unsafe { import::name_number(kind, name.as_ptr(), name.len()) }
}

#[derive(Debug)]
pub(super) struct Meter(i32);

impl Meter {
    pub(super) fn open(rate_milli: i64, burst: i64, entries: u32) -> Result<Self, i32> {
        opened(import::meter_open(rate_milli, burst, entries)).map(Self)
    }

    pub(super) fn take(
        &mut self,
        keys: &[[u8; 16]],
        now_ns: u64,
        costs: Option<&[u32]>,
        admitted: &mut [u8],
    ) {
        let costs = costs.map_or(core::ptr::null(), <[u32]>::as_ptr);
        // SAFETY: the host reads as many keys and costs as there are keys, and writes as many
        // results; the caller has checked that all three slices have them. It keeps no pointer.
        unsafe {
            import::meter_batch(
                self.0,
                keys.as_ptr(),
                keys.len(),
                now_ns,
                costs,
                admitted.as_mut_ptr(),
            );
        }
    }

    /// `addresses` has one of 16 bytes at the start of each `stride` bytes, for each place in `admitted`.
    pub(super) fn take_prefixes(
        &mut self,
        addresses: &[u8],
        stride: usize,
        (len4, len6): (u32, u32),
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        let n = admitted.len();
        assert!(n == 0 || addresses.len() >= (n - 1) * stride + 16);
        let addresses = addresses.as_ptr();
        let admitted = admitted.as_mut_ptr();
        // SAFETY: the last address ends inside `addresses`, `admitted` has `n` places, and the host keeps no
        // pointer.
        unsafe {
            import::meter_prefix_batch(self.0, addresses, stride, n, len4, len6, now_ns, admitted);
        }
    }
}

#[derive(Debug)]
pub(super) struct Quota(i32);

impl Quota {
    pub(super) fn open(budget: u32, members: u32, lifetime_ms: u64) -> Result<Self, i32> {
        opened(import::quota_open(budget, members, lifetime_ms)).map(Self)
    }

    pub(super) fn admit(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        answers: &mut [u8],
    ) {
        // SAFETY: the caller has checked that the three slices have one length; the host reads and
        // writes as many entries, and keeps no pointer.
        unsafe {
            import::quota_batch(
                self.0,
                groups.as_ptr(),
                members.as_ptr(),
                groups.len(),
                now_ns,
                answers.as_mut_ptr(),
            );
        }
    }

    pub(super) fn contains(
        &self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        present: &mut [u8],
    ) {
        // SAFETY: as in `admit`.
        unsafe {
            import::quota_contains(
                self.0,
                groups.as_ptr(),
                members.as_ptr(),
                groups.len(),
                now_ns,
                present.as_mut_ptr(),
            );
        }
    }

    pub(super) fn leave(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        departures: &mut [u8],
    ) {
        // SAFETY: as in `admit`.
        unsafe {
            import::quota_leave(
                self.0,
                groups.as_ptr(),
                members.as_ptr(),
                groups.len(),
                now_ns,
                departures.as_mut_ptr(),
            );
        }
    }
}

#[derive(Debug)]
pub(super) struct Table(i32);

impl Table {
    pub(super) fn open(name: &str) -> Result<Self, i32> {
        // SAFETY: the host reads the name during the call and keeps no pointer.
        opened(unsafe { import::table_open(name.as_ptr(), name.len()) }).map(Self)
    }

    pub(super) fn word(&self, word: &str) -> u32 {
        // SAFETY: as in `open`.
        unsafe { import::table_word(self.0, word.as_ptr(), word.len()) }
    }

    /// `keys` has a key of 16 bytes at the start of each `stride` bytes.
    pub(super) fn lookup(&self, keys: &[u8], stride: usize, n: usize, values: &mut [u32]) {
        assert!(n == 0 || keys.len() >= (n - 1) * stride + 16);
        // SAFETY: the last key ends inside `keys`, the caller has checked that `values` has `n`
        // places, and the host keeps no pointer.
        unsafe { import::table_batch(self.0, keys.as_ptr(), stride, n, values.as_mut_ptr()) }
    }
}

fn opened(handle: i32) -> Result<i32, i32> {
    if handle < 0 { Err(handle) } else { Ok(handle) }
}
