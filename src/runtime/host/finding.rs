//! What a check of the host found: a verdict, the facts and a remedy. Checks nothing itself.

use std::fmt;

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As required.
    Pass,
    /// The engine runs, but not as well as it could.
    Warn,
    /// The engine cannot run.
    Fail,
}

impl Verdict {
    /// The word that is printed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was checked, one snake_case word.
    pub check: &'static str,
    /// Outcome.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; set unless the verdict is [`Verdict::Pass`].
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:<15} {}", self.verdict.as_str(), self.check, self.found)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n      {:<15} remedy: {remedy}", "")?;
        }
        Ok(())
    }
}

impl Finding {
    /// All is as required.
    pub(crate) fn pass(check: &'static str, found: String) -> Self {
        Finding { check, verdict: Verdict::Pass, found, remedy: None }
    }

    /// The engine runs, but not as well as it could.
    pub(crate) fn warn(check: &'static str, found: String, remedy: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Warn, found, remedy: Some(remedy.into()) }
    }

    /// The engine cannot run.
    pub(crate) fn fail(check: &'static str, found: String, remedy: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Fail, found, remedy: Some(remedy.into()) }
    }

    /// A failure whose message has the remedy after its last semicolon, as all messages of the
    /// engine's start do.
    pub(crate) fn fail_with_remedy(check: &'static str, message: &str) -> Self {
        let (found, remedy) = message.rsplit_once("; ").unwrap_or((message, "see the log"));
        Finding::fail(check, found.to_owned(), remedy)
    }
}
