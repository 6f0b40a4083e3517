//! [`Bed`]: the namespaces that changes are measured in.
//!
//! ```text
//!   transit: the bed of the peers, with node a as the device under test
//!
//!   slice:   tester                 node a                switch        node b
//!            t0 ==================> d0   d1 ============= s1
//!            t1 <=================================== s0   s2 ========== e0  198.19.0.3
//! ```
//!
//! In `slice` all of 198.19.0.0/24 is one bridge, as the subnet of a cloud is, so that either node
//! reaches the sink and the other node by itself. Node b's only interface carries both.

use std::process::Command;

use anyhow::Result;

use crate::lab::link::{End, Link};
use crate::lab::namespace::Namespace;
use crate::peers::bed::{
    D0, D1, DESTINATIONS, Interface, SOURCES, T0, T1, end, know, namespace, on_link,
};

/// Node b's interface.
pub const E0: Interface =
    Interface { name: "e0", mac: "02:00:5e:13:00:03", v4: "198.19.0.3", v6: "2001:2:0:2::3" };

/// Another address of the sink: a second next hop that is as good as `T1.v4`.
pub const T1_SECOND_V4: &str = "198.19.0.4";

/// MTU of all interfaces in bytes.
const MTU_BYTES: u32 = 1500;

/// Which bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Node a alone; traffic passes through it.
    Transit,
    /// Two nodes that share an address; traffic goes to a slice of it.
    Slice,
}

/// The namespaces with their links. They are deleted when this is dropped.
#[derive(Debug)]
pub struct Bed {
    /// Where the generator and the sink are.
    pub tester: Namespace,
    /// Where node a is.
    pub a: Namespace,
    /// Where node b is, if there is one.
    pub b: Option<Namespace>,
    _switch: Option<Namespace>,
}

impl Bed {
    /// Makes it.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn build(shape: Shape) -> Result<Self> {
        let bed = match shape {
            Shape::Transit => {
                let crate::peers::bed::Bed { tester, dut } = crate::peers::bed::Bed::build()?;
                Self { tester, a: dut, b: None, _switch: None }
            }
            Shape::Slice => bridged()?,
        };
        // The second next hop differs in its address only.
        let words = ["neigh", "replace", T1_SECOND_V4, "lladdr", T1.mac, "nud", "permanent"];
        bed.a.ip(&[&words[..], &["dev", D1.name]].concat())?;
        Ok(bed)
    }
}

fn bridged() -> Result<Bed> {
    let (tester, a, b) = (namespace("tester")?, namespace("node-a")?, namespace("node-b")?);
    let switch = namespace("switch")?;
    switch.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
    switch.ip(&["link", "set", "br0", "up"])?;
    let link = Link { queues: 1, mtu_bytes: MTU_BYTES };
    let connect = |namespace: &Namespace, own: Interface, other: &End<'_>| {
        let own_on_link = on_link(own);
        link.connect(&end(namespace, own, &own_on_link.each_ref().map(String::as_str)), other)
    };
    let d0_on_link = on_link(D0);
    connect(&tester, T0, &end(&a, D0, &d0_on_link.each_ref().map(String::as_str)))?;
    for (namespace, own, port) in [(&tester, T1, "s0"), (&a, D1, "s1"), (&b, E0, "s2")] {
        connect(namespace, own, &End::new(&switch, port, &[]))?;
        switch.ip(&["link", "set", port, "master", "br0"])?;
    }
    // As in the peers' bed: without it an interface has no NAPI, and XDP cannot redirect to it.
    for (namespace, interface) in
        [(&tester, T0.name), (&tester, T1.name), (&a, D0.name), (&a, D1.name), (&b, E0.name)]
    {
        namespace.output(Command::new("ethtool").args(["-K", interface, "gro", "on"]))?;
    }
    know(&tester, T0, D0)?;
    know(&a, D0, T0)?;
    for (namespace, own, others) in
        [(&a, D1, [T1, E0]), (&b, E0, [T1, D1]), (&tester, T1, [D1, E0])]
    {
        for other in others {
            know(namespace, own, other)?;
        }
    }
    a.ip(&["route", "add", SOURCES, "via", T0.v4, "dev", D0.name])?;
    for (node, interface) in [(&a, D1.name), (&b, E0.name)] {
        node.ip(&["route", "add", DESTINATIONS[0], "via", T1.v4, "dev", interface])?;
    }
    Ok(Bed { tester, a, b: Some(b), _switch: Some(switch) })
}
