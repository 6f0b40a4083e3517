//! [`Summary`]: what the tests of many binaries said, counted from libtest's lines.

use std::fmt;

/// Where the last words of failed tests are cut off.
const TOLD_BYTES_MAX: usize = 16 << 10;

/// What the tests of many binaries said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tests that passed, those that skipped themselves included.
    pub passed: usize,
    /// Tests that are marked as ignored.
    pub ignored: usize,
    /// Names of the tests that failed.
    pub failed: Vec<String>,
    /// What tests said about parts that they skipped.
    pub skipped: Vec<String>,
    /// What libtest shows of the tests that failed, to be said again at the end, where it is found.
    pub told: String,
    /// Whether the last lines were told by a test that failed.
    in_failure: bool,
    /// Whether the last lines were libtest's list of tests that passed, which it has shown before.
    in_successes: bool,
}

impl Summary {
    /// Reads a line of output. Returns whether it is worth showing.
    pub fn read(&mut self, line: &str) -> bool {
        let text = line.trim();
        if text == "successes:" {
            self.in_successes = true;
        } else if !text.is_empty() && !line.starts_with("    ") {
            self.in_successes = false;
        }
        if self.in_successes {
            return false;
        }
        if text == "failures:" {
            self.in_failure = true;
        } else if text.starts_with("test result:") {
            self.in_failure = false;
        }
        if self.in_failure && self.told.len() < TOLD_BYTES_MAX {
            self.told.push_str(line.trim_end());
            self.told.push('\n');
        }
        if let Some(rest) = text.strip_prefix("test ")
            && let Some((name, outcome)) = rest.rsplit_once(" ... ")
        {
            match outcome {
                "ok" => self.passed += 1,
                "FAILED" => self.failed.push(name.to_owned()),
                outcome if outcome.starts_with("ignored") => self.ignored += 1,
                _ => {}
            }
        } else if text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("skip"))
            && !self.skipped.iter().any(|known| known == text)
        {
            self.skipped.push(text.to_owned());
        }
        true
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for skipped in &self.skipped {
            writeln!(f, "  {skipped}")?;
        }
        f.write_str(&self.told)?;
        for failed in &self.failed {
            writeln!(f, "  FAILED {failed}")?;
        }
        write!(
            f,
            "{} passed, {} failed, {} ignored; {} said that they skipped something",
            self.passed,
            self.failed.len(),
            self.ignored,
            self.skipped.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libtest_are_counted() {
        let mut summary = Summary::default();
        let lines = [
            ("     Running tests/pcap.rs (target/release/deps/pcap-1234)", true),
            ("running 4 tests", true),
            ("test a::b ... ok", true),
            ("test src/lib.rs - Frame (line 7) ... ok", true),
            ("test c - should panic ... ok", true),
            ("test broken ... FAILED", true),
            ("test slow ... ignored, takes an hour", true),
            ("", true),
            ("successes:", false),
            ("", false),
            ("---- a::b stdout ----", true),
            ("SKIPPED a::b: no CAP_NET_ADMIN", true),
            ("SKIPPED a::b: no CAP_NET_ADMIN", true),
            ("skipping the rest: SLUICE_TESTDATA is not set", true),
            ("ski", true),
            ("", true),
            ("successes:", false),
            ("    a::b", false),
            ("", false),
            ("failures:", true),
            ("---- broken stdout ----", true),
            ("it is broken", true),
            ("", true),
            ("failures:", true),
            ("    broken", true),
            ("test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured", true),
        ];
        for (line, is_shown) in lines {
            assert_eq!(summary.read(line), is_shown, "{line:?}");
        }
        assert_eq!((summary.passed, summary.ignored), (3, 1));
        assert_eq!(summary.failed, ["broken"]);
        assert!(summary.to_string().contains("---- broken stdout ----\nit is broken\n"));
        assert!(!summary.told.contains("test result"));
        assert_eq!(
            summary.skipped,
            ["SKIPPED a::b: no CAP_NET_ADMIN", "skipping the rest: SLUICE_TESTDATA is not set"]
        );
    }
}
