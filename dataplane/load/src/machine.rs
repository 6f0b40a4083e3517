//! The machine of a measurement, as far as it tells.

use std::fs;

use crate::document::Machine;

/// Reads what is known of this machine.
#[must_use]
pub fn machine() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let has_tsc = cfg!(target_arch = "x86_64");
    Machine {
        cpu: model(&cpuinfo).unwrap_or("unknown").into(),
        cpus: processors(&cpuinfo),
        kernel: kernel.trim().into(),
        platform: platform(&cpuinfo),
        tsc_hz: has_tsc.then(frame::tsc::hertz),
    }
}

fn field<'text>(cpuinfo: &'text str, name: &str) -> Option<&'text str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

fn model(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "model name")
}

fn processors(cpuinfo: &str) -> u32 {
    let listed = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    u32::try_from(listed).unwrap_or(u32::MAX)
}

/// Vendor and product by the firmware ("Amazon EC2 c6in.xlarge"), or that there is a hypervisor.
fn platform(cpuinfo: &str) -> Option<String> {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/class/dmi/id/{name}")).ok()?;
        let text = text.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    match (read("sys_vendor"), read("product_name")) {
        (Some(vendor), Some(product)) => Some(format!("{vendor} {product}")),
        (vendor, product) => vendor.or(product).or_else(|| {
            let flags = field(cpuinfo, "flags")?;
            flags.split(' ').any(|flag| flag == "hypervisor").then(|| "a virtual machine".into())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n\n\
                    processor\t: 1\nmodel name\t: A CPU @ 3 GHz\n";
        assert_eq!(model(text), Some("A CPU @ 3 GHz"));
        assert_eq!(processors(text), 2);
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let machine = machine();
        assert!(machine.kernel.contains('.'), "{machine:?}");
        assert!(machine.cpus > 0);
    }
}
