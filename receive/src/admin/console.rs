//! Where reports go and questions are asked.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{args::Consent, error::AdminError};

/// A person, or a program.
pub trait Console: Send {
    /// What was asked for.
    fn print(&mut self, text: &str);

    /// What goes on meanwhile.
    fn tell(&mut self, text: &str);

    /// Asks yes or no; none if there is nobody to ask.
    fn ask(&mut self, question: &str) -> Option<bool>;
}

/// Standard output, standard error, and standard input if it is a terminal.
#[derive(Debug, Default)]
pub struct Terminal;

impl Console for Terminal {
    // That nobody reads it any more is no reason to stop.
    fn print(&mut self, text: &str) {
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
    }

    fn tell(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", text.trim_end());
    }

    fn ask(&mut self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let _ = io::stderr().flush();
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// A console and the form of what it is told.
pub struct Output<'a> {
    console: &'a mut dyn Console,
    json: bool,
}

impl<'a> Output<'a> {
    /// Reports are JSON for programs, or text for people.
    pub fn new(console: &'a mut dyn Console, json: bool) -> Self {
        Self { console, json }
    }

    /// The one report of a command.
    pub fn report<R: Serialize + ToString>(&mut self, report: &R) {
        let text = if self.json {
            serde_json::to_string_pretty(report).expect("reports have only keys that are text")
        } else {
            report.to_string()
        };
        self.console.print(&text);
    }

    /// What goes on meanwhile.
    pub fn tell(&mut self, text: &str) {
        self.console.tell(text);
    }

    /// Shows what will be done, and asks whether it shall. False if it is only a dry run; then that
    /// was the report.
    ///
    /// # Errors
    /// If the answer is no, or nobody can be asked.
    pub fn confirm<P: Serialize + ToString>(
        &mut self,
        plan: &P,
        consent: Consent,
    ) -> Result<bool, AdminError> {
        if consent.dry_run {
            self.report(plan);
            return Ok(false);
        }
        // The report of a program is what comes of it, and there is but one.
        self.console.tell(&plan.to_string());
        if consent.yes {
            return Ok(true);
        }
        match self.console.ask("Go on?") {
            Some(true) => Ok(true),
            Some(false) => Err(AdminError::Declined),
            None => Err(AdminError::NobodyToAsk),
        }
    }
}
