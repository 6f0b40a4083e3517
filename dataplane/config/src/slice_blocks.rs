//! From the checked slices to what [`tables::SliceTable`] is built from.

use std::collections::HashMap;

use ipnet::IpNet;
use tables::{EgressBlock, Owner, SiteId, SliceId, SliceRange};

use crate::model::{Checked, Egress, SitePorts};
use crate::ports::PortRange;

impl Checked {
    /// Who has which (address, port), from the point of view of this node: its own owners are
    /// [`Owner::Local`], other nodes of its site [`Owner::Node`], all of another site
    /// [`Owner::Site`].
    ///
    /// One block for each egress prefix, and one for each longer address that has slices. What a
    /// longer address leaves open it has from the prefix around it, as in
    /// [`EgressBlock::rest`]; an egress prefix leaves nothing open. Port ranges of other sites are
    /// numbered behind the slices, see [`Checked::slice_name`].
    #[must_use]
    pub fn slice_blocks(&self) -> Vec<EgressBlock> {
        let own_site = self.own_site();
        let mut blocks: Vec<EgressBlock> = Vec::new();
        let mut positions: HashMap<(usize, IpNet), usize> = HashMap::new();
        for (position, egress) in self.egress.iter().enumerate() {
            positions.insert((position, egress.prefix), blocks.len());
            blocks.push(EgressBlock {
                prefix: egress.prefix,
                ranges: Vec::new(),
                rest: egress.rest,
                portless: egress.portless.unwrap_or(Owner::DropByDefault),
            });
        }
        for (number, (egress, range)) in (self.slices.len()..).zip(self.level_1()) {
            if own_site != Some(range.site) {
                let owner = Owner::Site(range.site);
                blocks[egress].ranges.push(slice_range(range.ports, number, owner));
            }
        }
        for (number, slice) in self.slices.iter().enumerate() {
            let egress = &self.egress[slice.egress];
            // Level 1 has given these ports to the other site already.
            if !egress.sites.is_empty() && matches!(slice.owner, Owner::Site(_)) {
                continue;
            }
            let position = *positions.entry((slice.egress, slice.address)).or_insert_with(|| {
                blocks.push(EgressBlock {
                    prefix: slice.address,
                    ranges: Vec::new(),
                    rest: Owner::Unowned,
                    portless: Owner::Unowned,
                });
                blocks.len() - 1
            });
            let block = &mut blocks[position];
            block.ranges.push(slice_range(slice.ports, number, slice.owner));
            if slice.ports == PortRange::ALL && egress.portless.is_none() {
                block.portless = slice.owner;
            }
        }
        blocks
    }

    /// The name of what a look-up found: a slice, or the port range of another site.
    #[must_use]
    pub fn slice_name(&self, id: SliceId) -> Option<String> {
        let number = id.0 as usize;
        if let Some(slice) = self.slices.get(number) {
            return Some(slice.name.clone());
        }
        let (egress, range) = self.level_1().nth(number - self.slices.len())?;
        let (prefix, site) = (self.egress[egress].prefix, &self.sites[usize::from(range.site.0)]);
        Some(format!("{prefix}:{}@{}", range.ports, site.name))
    }

    /// The site of this node; `None` for the one without a name.
    #[must_use]
    pub fn own_site(&self) -> Option<SiteId> {
        self.local_node.and_then(|node| self.nodes[node].site)
    }

    /// The level-1 ranges of all egress prefixes, with the positions of these.
    fn level_1(&self) -> impl Iterator<Item = (usize, SitePorts)> + '_ {
        let entries = self.egress.iter().enumerate();
        entries.flat_map(|(position, Egress { sites, .. })| {
            sites.iter().map(move |range| (position, *range))
        })
    }
}

fn slice_range(ports: PortRange, number: usize, owner: Owner) -> SliceRange {
    let slice = SliceId(u32::try_from(number).unwrap_or(u32::MAX));
    SliceRange { first_port: ports.first(), last_port: ports.last(), slice, owner }
}
