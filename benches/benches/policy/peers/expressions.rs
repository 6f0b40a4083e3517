//! The rules in Cloudflare's engine for filters, the crate wirefilter-engine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluice_abi::{Descriptor, flags};
use wirefilter::{ExecutionContext, Filter, Scheme};

use super::packets::Rule;

/// One filter for each rule, asked in order.
pub(super) struct Expressions {
    scheme: &'static Scheme,
    filters: Vec<Filter<'static>>,
}

impl Expressions {
    pub(super) fn new(rules: &[Rule]) -> Self {
        // The filters borrow it.
        let scheme: &'static Scheme = Box::leak(Box::new(Scheme! {
            ip.src: Ip,
            ip.dst: Ip,
            ip.proto: Int,
            srcport: Int,
            dstport: Int,
        }));
        let compile = |rule: &Rule| {
            let text: &'static str = Box::leak(rule.expression().into_boxed_str());
            scheme.parse(text).expect("an expression").compile()
        };
        Self { scheme, filters: rules.iter().map(compile).collect() }
    }

    /// A context without a packet.
    pub(super) fn context(&self) -> ExecutionContext<'static> {
        ExecutionContext::new(self.scheme)
    }

    /// The number of the first rule that the packet in the context meets, from 1 on, or 0.
    #[inline]
    pub(super) fn judge(&self, context: &ExecutionContext<'static>) -> u8 {
        let met = |filter: &Filter<'_>| filter.execute(context).expect("the same scheme");
        self.filters.iter().position(met).map_or(0, |rule| rule as u8 + 1)
    }
}

/// Puts a packet into a context.
pub(super) fn fill(context: &mut ExecutionContext<'static>, packet: &Descriptor) {
    let address = |bytes: [u8; 16]| -> IpAddr {
        if packet.flags & flags::IPV6 == 0 {
            let [.., a, b, c, d] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        } else {
            Ipv6Addr::from(bytes).into()
        }
    };
    let mut set = |name, value: wirefilter::LhsValue<'static>| {
        context.set_field_value(name, value).expect("a field of the scheme");
    };
    set("ip.src", address(packet.source).into());
    set("ip.dst", address(packet.destination).into());
    set("ip.proto", i32::from(packet.protocol).into());
    set("srcport", i32::from(packet.source_port).into());
    set("dstport", i32::from(packet.destination_port).into());
}
