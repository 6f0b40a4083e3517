//! What a report says of slices and egress prefixes. Made once for each configuration: going through
//! millions of slices for every scrape would hold up the control loop.

use config::{Checked, Delivery, Owner, Slice};
use control::status::{EgressStatus, OwnerStatus, SharingStatus, SliceStatus};

/// All slices are owned as long as none is leased.
const STATE: &str = "owned";

/// The rows of a configuration's reports.
#[derive(Debug)]
pub(crate) struct Sharing {
    pub(crate) counts: SharingStatus,
    pub(crate) slices: Vec<SliceStatus>,
    pub(crate) egress: Vec<EgressStatus>,
}

impl Sharing {
    pub(crate) fn new(config: &Checked) -> Self {
        let mut of_egress = vec![0_u64; config.egress.len()];
        let mut of_owner = vec![0_u64; config.owners.len()];
        let mut of_node = vec![0_u64; config.nodes.len()];
        for slice in &config.slices {
            let owner = match slice.owner {
                Owner::Local(owner) => of_owner.get_mut(usize::from(owner.0)),
                _ => of_node.get_mut(usize::from(slice.node.0)),
            };
            let count = |count: Option<&mut u64>| count.map(|count| *count += 1);
            count(owner);
            count(of_egress.get_mut(slice.egress));
        }
        let egress = config.egress.iter().zip(of_egress).map(|(egress, slices)| EgressStatus {
            prefix: egress.prefix.to_string(),
            slices,
            default: match egress.rest {
                Owner::Unowned => "none".to_owned(),
                Owner::DropByDefault => "drop".to_owned(),
                Owner::Local(owner) => config.owners[usize::from(owner.0)].name.clone(),
                Owner::Node(node) => config.nodes[usize::from(node.0)].name.clone(),
                Owner::Site(site) => config.sites[usize::from(site.0)].name.clone(),
            },
        });
        let row = |owner, is_here, slices| OwnerStatus {
            owner,
            is_here,
            state: STATE.to_owned(),
            slices,
        };
        // Nodes without slices too, so that a count falls to 0 and does not end.
        let nodes = config.nodes.iter().zip(of_node);
        let owners = of_owner.into_iter().enumerate().filter(|(_, slices)| *slices > 0);
        let rows = nodes
            .map(|(node, slices)| row(node.name.clone(), false, slices))
            .chain(owners.map(|(owner, slices)| row(local_name(config, owner), true, slices)));
        let slices = config.slices.iter().map(|slice| slice_row(config, slice));
        let (counts, slices, egress) = SharingStatus::new(
            slices,
            config.slices.len() as u64,
            egress.collect(),
            rows.collect(),
        );
        Self { counts, slices, egress }
    }
}

/// A slice as reports have it.
pub(crate) fn slice_row(config: &Checked, slice: &Slice) -> SliceStatus {
    SliceStatus {
        name: slice.name.clone(),
        egress: slice.address.to_string(),
        ports: slice.ports.to_string(),
        owner: match slice.owner {
            Owner::Local(owner) => local_name(config, usize::from(owner.0)),
            _ => config.nodes[usize::from(slice.node.0)].name.clone(),
        },
        state: STATE.to_owned(),
    }
}

/// An owner on this machine.
fn local_name(config: &Checked, owner: usize) -> String {
    let owner = &config.owners[owner];
    match owner.delivery {
        Delivery::Kernel => format!("{} (here)", owner.name),
        Delivery::NextHop { address, .. } => format!("{} (here, {address})", owner.name),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use control::status::SHARED_ROWS_MAX;

    use super::*;

    fn config(addresses: usize, slices: usize) -> Checked {
        let mut text = r#"
            [router]
            name = "edge"
            node = "a"
            [[interface]]
            name = "lan0"
            role = "inside"
            [[interface]]
            name = "wan0"
            role = "outside"
            [[node]]
            name = "a"
            address = "10.0.0.11"
            [[node]]
            name = "b"
            address = "10.0.0.12"
            [[node]]
            name = "idle"
            address = "10.0.0.13"
            [[owner]]
            name = "web"
            node = "a"
            deliver = { next_hop = "10.0.1.2", interface = "lan0" }
        "#
        .to_owned();
        for address in 0..addresses {
            let (high, low) = (address >> 8, address & 255);
            let _ = writeln!(
                text,
                "[[egress]]\nprefix = \"100.64.{high}.{low}/32\"\ndefault = \"drop\""
            );
            for slice in 0..slices {
                let owner = if slice % 2 == 0 { "owner = \"web\"" } else { "node = \"b\"" };
                let (first, last) = (slice * 1000, slice * 1000 + 999);
                let _ = writeln!(text, "[[egress.slice]]\nports = \"{first}-{last}\"\n{owner}");
            }
        }
        Checked::parse(&text, "t.toml").expect("a configuration")
    }

    #[test]
    fn every_slice_is_counted_once_and_few_are_listed() {
        let sharing = Sharing::new(&config(600, 31));
        let counts = &sharing.counts;
        assert_eq!((counts.egress, counts.slices, counts.slices_here), (600, 18_600, 9600));
        assert_eq!(sharing.slices.len(), SHARED_ROWS_MAX);
        assert_eq!(sharing.egress.len(), SHARED_ROWS_MAX);
        assert_eq!(counts.slices_left_out, 18_600 - SHARED_ROWS_MAX as u64);
        assert_eq!(counts.egress_left_out, 600 - SHARED_ROWS_MAX as u64);
        assert!(sharing.egress.iter().all(|row| row.slices == 31 && row.default == "drop"));
        let owners: Vec<(&str, bool, u64)> =
            counts.owners.iter().map(|row| (row.owner.as_str(), row.is_here, row.slices)).collect();
        let expected = [
            ("web (here, 10.0.1.2)", true, 9600),
            ("b", false, 9000),
            ("a", false, 0),
            ("idle", false, 0),
        ];
        assert_eq!(owners, expected);
    }

    #[test]
    fn a_few_slices_are_all_listed() {
        let sharing = Sharing::new(&config(1, 3));
        let names: Vec<(&str, &str)> =
            sharing.slices.iter().map(|row| (row.ports.as_str(), row.owner.as_str())).collect();
        let web = "web (here, 10.0.1.2)";
        assert_eq!(names, [("0-999", web), ("1000-1999", "b"), ("2000-2999", web)]);
        assert_eq!((sharing.counts.slices_left_out, sharing.counts.egress_left_out), (0, 0));
    }
}
