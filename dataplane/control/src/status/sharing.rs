//! How shared addresses are divided, in a few rows however many slices there are. `sluice slice show` has
//! all of them, in pages.

use serde::{Deserialize, Serialize};

use super::{EgressStatus, SliceStatus};

/// Rows in each list of slices, egress prefixes and owners in a report, and owners with series of their own
/// among the metrics. More make a report longer than anybody reads; the rest is counted.
pub const SHARED_ROWS_MAX: usize = 256;

/// Slices and egress prefixes of the configuration in numbers, with what the report's lists leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharingStatus {
    /// Egress prefixes.
    pub egress: u64,
    /// Those that the report does not list: the ones with the fewest slices.
    pub egress_left_out: u64,
    /// Slices.
    pub slices: u64,
    /// Those, part of `slices`, whose owners are on this machine.
    pub slices_here: u64,
    /// Slices that the report does not list: the last ones of the configuration.
    pub slices_left_out: u64,
    /// Slices by owner: the other nodes, and the owners on this machine. Most slices first.
    pub owners: Vec<OwnerStatus>,
    /// Owners that are not listed: the ones with the fewest slices.
    pub owners_left_out: u64,
    /// The slices of those.
    pub slices_of_owners_left_out: u64,
}

/// How many slices an owner has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// The owner, as in [`SliceStatus::owner`].
    pub owner: String,
    /// Whether it is on this machine.
    pub is_here: bool,
    /// `owned`, `draining` or `none`.
    pub state: String,
    /// Its slices in that state.
    pub slices: u64,
}

impl SharingStatus {
    /// Counts, and the rows that a report lists. `slices` are in the order of the configuration; only as
    /// many as are listed need be given, while `count` is that of all.
    #[must_use]
    pub fn new(
        slices: impl Iterator<Item = SliceStatus>,
        count: u64,
        mut egress: Vec<EgressStatus>,
        mut owners: Vec<OwnerStatus>,
    ) -> (Self, Vec<SliceStatus>, Vec<EgressStatus>) {
        let slices: Vec<SliceStatus> = slices.take(SHARED_ROWS_MAX).collect();
        let mut sharing = Self {
            egress: egress.len() as u64,
            slices: count,
            slices_here: owners.iter().filter(|row| row.is_here).map(|row| row.slices).sum(),
            slices_left_out: count.saturating_sub(slices.len() as u64),
            ..Self::default()
        };
        if egress.len() > SHARED_ROWS_MAX {
            egress.sort_by_key(|row| std::cmp::Reverse(row.slices));
            sharing.egress_left_out = egress.drain(SHARED_ROWS_MAX..).len() as u64;
        }
        owners.sort_by_key(|row| std::cmp::Reverse(row.slices));
        if owners.len() > SHARED_ROWS_MAX {
            for row in owners.drain(SHARED_ROWS_MAX..) {
                sharing.owners_left_out += 1;
                sharing.slices_of_owners_left_out += row.slices;
            }
        }
        sharing.owners = owners;
        (sharing, slices, egress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_what_they_leave_out_is_counted() {
        const COUNT: usize = 100_000;
        let slice = |number: usize| SliceStatus { name: number.to_string(), ..Default::default() };
        let egress = |number: usize| EgressStatus {
            prefix: number.to_string(),
            slices: number as u64,
            ..Default::default()
        };
        let owner = |number: usize| OwnerStatus {
            owner: number.to_string(),
            is_here: number == 0,
            state: "owned".into(),
            slices: 1 + (number as u64) % 2,
        };
        let (sharing, slices, egress) = SharingStatus::new(
            (0..COUNT).map(slice),
            COUNT as u64,
            (0..COUNT).map(egress).collect(),
            (0..SHARED_ROWS_MAX + 2).map(owner).collect(),
        );
        assert_eq!((slices.len(), egress.len()), (SHARED_ROWS_MAX, SHARED_ROWS_MAX));
        assert_eq!(slices[0].name, "0", "the first ones of the configuration");
        assert_eq!(egress[0].prefix, "99999", "the ones with the most slices");
        let left_out = (COUNT - SHARED_ROWS_MAX) as u64;
        let expected = SharingStatus {
            egress: COUNT as u64,
            egress_left_out: left_out,
            slices: COUNT as u64,
            slices_here: 1,
            slices_left_out: left_out,
            owners: sharing.owners.clone(),
            owners_left_out: 2,
            slices_of_owners_left_out: 2,
        };
        assert_eq!(sharing, expected);
        assert_eq!(sharing.owners.len(), SHARED_ROWS_MAX);
        assert_eq!((sharing.owners[0].owner.as_str(), sharing.owners[0].slices), ("1", 2));
    }

    #[test]
    fn what_fits_is_listed_whole_and_in_its_order() {
        let rows: Vec<EgressStatus> = (0..SHARED_ROWS_MAX)
            .map(|number| EgressStatus { slices: number as u64, ..Default::default() })
            .collect();
        let (sharing, _, listed) =
            SharingStatus::new(std::iter::empty(), 0, rows.clone(), Vec::new());
        assert_eq!((sharing.egress_left_out, listed), (0, rows));
    }
}
