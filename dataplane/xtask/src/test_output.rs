//! [`Summary`]: what the tests of many binaries said, counted from libtest's lines.

use std::fmt;

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
            ("    broken", true),
            ("test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured", true),
        ];
        for (line, is_shown) in lines {
            assert_eq!(summary.read(line), is_shown, "{line:?}");
        }
        assert_eq!((summary.passed, summary.ignored), (3, 1));
        assert_eq!(summary.failed, ["broken"]);
        assert_eq!(
            summary.skipped,
            ["SKIPPED a::b: no CAP_NET_ADMIN", "skipping the rest: SLUICE_TESTDATA is not set"]
        );
    }
}
