//! Files of static routes.

use std::fmt::Write as _;
use std::fs;

use config::{Config, ConfigErrors, RouteTarget};
use wire::InterfaceId;

const CONFIG: &str = "route_files = [\"full.routes\"]\n[[interface]]\nname = \"eth0\"\nrole = \
                      \"both\"\n[[interface]]\nname = \"eth1\"\nrole = \"both\"\n";

/// Loads [`CONFIG`] beside a route file; messages have the directory's name taken out.
fn load(routes: impl AsRef<[u8]>) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("full.routes"), routes).unwrap();
    let path = directory.path().join("sluice.toml");
    fs::write(&path, CONFIG).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let lines = |errors: ConfigErrors| {
        errors.to_string().replace(&prefix, "").lines().map(str::to_owned).collect()
    };
    Config::load(&path).map_err(lines)
}

#[test]
fn every_form_of_a_line() {
    let checked = load(
        "# a comment\n\n192.0.2.0/24 via 10.0.0.1\n  198.51.100.0/24  via fe80::1 dev eth1 metric \
         10 # why\n10.1.0.0/16 dev eth1\r\n203.0.113.0/24 blackhole\n2001:db8::/32 unreachable\n\
         ::/0 prohibit metric 4294967295\n192.0.2.1 via 10.0.0.1",
    )
    .unwrap();
    let address = |text: &str| text.parse().unwrap();
    let via = RouteTarget::Via { address: address("10.0.0.1"), interface: None };
    let linked = RouteTarget::Via { address: address("fe80::1"), interface: Some(InterfaceId(1)) };
    let expected = [
        ("192.0.2.0/24", via, 0),
        ("198.51.100.0/24", linked, 10),
        ("10.1.0.0/16", RouteTarget::OnLink(InterfaceId(1)), 0),
        ("203.0.113.0/24", RouteTarget::Blackhole, 0),
        ("2001:db8::/32", RouteTarget::Unreachable, 0),
        ("::/0", RouteTarget::Prohibit, u32::MAX),
        ("192.0.2.1/32", via, 0),
    ];
    let routes: Vec<_> = checked.static_routes().collect();
    assert_eq!(routes.len(), expected.len());
    for (route, (prefix, target, metric)) in routes.iter().zip(expected) {
        assert_eq!(route.prefix, prefix.parse().unwrap());
        assert_eq!((route.target, route.metric), (target, metric));
    }
}

#[test]
fn refusals_name_file_and_line() {
    let form = "is not a route: PREFIX via ADDRESS [dev INTERFACE] [metric N], PREFIX dev \
                INTERFACE [metric N] or PREFIX blackhole|unreachable|prohibit [metric N]";
    let lines = [
        ("10.0.0.0/8", format!("\"10.0.0.0/8\" {form}")),
        ("10.0.0.0/8 via", format!("\"10.0.0.0/8 via\" {form}")),
        (
            "10.0.0.0/8 via 10.0.0.1 blackhole",
            format!("\"10.0.0.0/8 via 10.0.0.1 blackhole\" {form}"),
        ),
        ("10.0.0.0/8 dev eth0 dev eth1", format!("\"10.0.0.0/8 dev eth0 dev eth1\" {form}")),
        ("10.0.0.0/8 dev eth0 metric x", format!("\"10.0.0.0/8 dev eth0 metric x\" {form}")),
        ("10.0.0.0/8 gone", format!("\"10.0.0.0/8 gone\" {form}")),
        (
            "10.0.0.0/8 dev eth7",
            "there is no interface \"eth7\"; there is \"eth0\", \"eth1\"".to_owned(),
        ),
        (
            "10.0.0.1/8 blackhole",
            "10.0.0.1/8 has bits set behind its length; did you mean 10.0.0.0/8?".to_owned(),
        ),
        ("::/0 via 10.0.0.1", "an IPv6 prefix cannot have the IPv4 next hop 10.0.0.1".to_owned()),
        (
            "::/0 via fe80::1",
            "the next hop fe80::1 is link-local: `interface` must say on which link".to_owned(),
        ),
    ];
    let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let expected: Vec<_> = (1..)
        .zip(&lines)
        .map(|(number, (_, reason))| format!("full.routes:{number}: {reason}"))
        .collect();
    assert_eq!(load(text).unwrap_err(), expected);
}

#[test]
fn a_file_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.toml");
    fs::write(&path, CONFIG).unwrap();
    let errors = Config::load(&path).unwrap_err();
    let directory = directory.path().display();
    assert_eq!(
        errors.to_string(),
        format!(
            "{directory}/sluice.toml:1: route_files[0]: cannot be read: {directory}/full.routes: \
             No such file or directory (os error 2)"
        )
    );
}

#[test]
fn files_that_are_no_route_files() {
    let no_lines = load(vec![b'x'; 1 << 20]).unwrap_err();
    assert_eq!(no_lines.len(), 1);
    assert!(no_lines[0].starts_with("full.routes:1: \"xxxxxxxx"), "{no_lines:?}");
    assert_eq!(
        load(b"10.0.0.0/8 blackhole\n\xff\n").unwrap_err(),
        ["full.routes:2: cannot be read: stream did not contain valid UTF-8"]
    );
    let broken = load("broken\n".repeat(1000)).unwrap_err();
    assert_eq!(broken.len(), 21);
    assert_eq!(broken[20], "full.routes: has more errors; these are the first");
}

/// As many routes as are allowed, and one more.
#[test]
fn two_million_routes() {
    let mut text = String::with_capacity(80 << 20);
    for number in 0..2_000_000u32 {
        let address = std::net::Ipv4Addr::from((1 << 24) + (number << 8));
        let _ = writeln!(text, "{address}/24 via 10.0.0.{} dev eth0", 1 + number % 32);
    }
    let checked = load(&text).unwrap();
    assert_eq!(checked.route_files[0].len(), 2_000_000);
    let last = checked.static_routes().last().unwrap();
    let address = "10.0.0.32".parse().unwrap();
    assert_eq!(last.target, RouteTarget::Via { address, interface: Some(InterfaceId(0)) });
    text.push_str("192.0.2.0/24 blackhole\n");
    assert_eq!(load(&text).unwrap_err(), ["full.routes:2000001: has more than 2000000 routes"]);
}
