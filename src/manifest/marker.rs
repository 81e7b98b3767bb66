//! Environment markers of the packaging specification "Dependency specifiers", checked and written canonically.

use std::ops::Range;
use std::str::FromStr;

use pep440_rs::{Version, VersionPattern};

use super::language::did_you_mean;
use super::mistake::Mistake;
use super::requirement::char_range;

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 32;

const VERSION_VARIABLES: &[&str] = &[
    "python_version",
    "python_full_version",
    "implementation_version",
];

const STRING_VARIABLES: &[&str] = &[
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "implementation_name",
    "extra",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Operator(&'static str),
    Variable(&'static str),
    Text(String),
}

/// The canonical text of a marker: one space between tokens, none inside parentheses, single quotes.
pub(super) fn canonical(text: &str) -> Result<String, Mistake> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Err(Mistake::at(
            text.len()..text.len(),
            "no marker follows the `;`",
            "a marker belongs here",
        )
        .help("write a marker such as `python_version < '3.13'`, or remove the `;`"));
    }
    let mut parser = Parser {
        text,
        tokens: &tokens,
        at: 0,
    };
    parser.either(0)?;
    if let Some((_, range)) = parser.tokens.get(parser.at) {
        return Err(Mistake::at(
            range.clone(),
            "the marker goes on after its end",
            "`and` or `or` is missing before this",
        ));
    }
    Ok(write(&tokens))
}

fn write(tokens: &[(Token, Range<usize>)]) -> String {
    let mut out = String::new();
    for (token, _) in tokens {
        if !(out.is_empty() || out.ends_with('(') || *token == Token::Close) {
            out.push(' ');
        }
        match token {
            Token::Open => out.push('('),
            Token::Close => out.push(')'),
            Token::And => out.push_str("and"),
            Token::Or => out.push_str("or"),
            Token::Operator(name) | Token::Variable(name) => out.push_str(name),
            Token::Text(value) if value.contains('\'') => out.push_str(&format!("\"{value}\"")),
            Token::Text(value) => out.push_str(&format!("'{value}'")),
        }
    }
    out
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Mistake> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            at += 1;
            continue;
        }
        let (token, len) = token(text, at, c)?;
        all.push((token, at..at + len));
        at += len;
    }
    Ok(all)
}

fn token(text: &str, at: usize, c: char) -> Result<(Token, usize), Mistake> {
    match c {
        '(' => Ok((Token::Open, 1)),
        ')' => Ok((Token::Close, 1)),
        '\'' | '"' => quoted(text, at, c),
        '<' | '>' | '=' | '!' | '~' => operator(text, at),
        _ if c.is_ascii_alphabetic() || c == '_' => word(text, at),
        _ => Err(Mistake::at(
            char_range(text, at),
            format!("`{c}` does not belong into a marker"),
            "not part of a marker",
        )
        .help("write a marker such as `python_version < '3.13'`")),
    }
}

fn quoted(text: &str, at: usize, quote: char) -> Result<(Token, usize), Mistake> {
    match text[at + 1..].find(quote) {
        Some(len) => Ok((Token::Text(text[at + 1..at + 1 + len].to_owned()), len + 2)),
        None => Err(Mistake::at(
            at..text.trim_end().len(),
            "a string in the marker is not closed",
            "the closing quote is missing",
        )),
    }
}

fn operator(text: &str, at: usize) -> Result<(Token, usize), Mistake> {
    let rest = &text[at..];
    for known in ["===", "==", "!=", "<=", ">=", "~=", "<", ">"] {
        if rest.starts_with(known) {
            return Ok((Token::Operator(known), known.len()));
        }
    }
    Err(
        Mistake::at(at..at + 1, "not an operator of markers", "not an operator")
            .help("write ==, !=, <=, >=, <, >, ~=, ===, `in` or `not in`"),
    )
}

fn word(text: &str, at: usize) -> Result<(Token, usize), Mistake> {
    let rest = &text[at..];
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let len = rest.find(|c| !part(c)).unwrap_or(rest.len());
    let known = match &rest[..len] {
        "and" => Token::And,
        "or" => Token::Or,
        "in" => Token::Operator("in"),
        "not" => {
            let after = rest[len..].trim_start();
            let ends = after
                .strip_prefix("in")
                .is_some_and(|rest| !rest.starts_with(part));
            if !ends {
                return Err(Mistake::at(
                    at..at + len,
                    "`not` is not followed by `in`",
                    "write `not in`",
                ));
            }
            return Ok((Token::Operator("not in"), rest.len() - after.len() + 2));
        }
        name => match variable(name) {
            Some(name) => Token::Variable(name),
            None => return Err(unknown_variable(name, at)),
        },
    };
    Ok((known, len))
}

fn variables() -> impl Iterator<Item = &'static str> {
    VERSION_VARIABLES.iter().chain(STRING_VARIABLES).copied()
}

/// The variable of that name; old spellings with dots are read as what they became.
fn variable(name: &str) -> Option<&'static str> {
    let name = match name {
        "os.name" => "os_name",
        "sys.platform" => "sys_platform",
        "platform.version" => "platform_version",
        "platform.machine" => "platform_machine",
        "platform.python_implementation" | "python_implementation" => {
            "platform_python_implementation"
        }
        other => other,
    };
    variables().find(|known| *known == name)
}

fn unknown_variable(name: &str, at: usize) -> Mistake {
    let help = match did_you_mean(name, variables()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "markers know {}",
            variables().collect::<Vec<_>>().join(", ")
        ),
    };
    Mistake::at(
        at..at + name.len(),
        format!("`{name}` is not a marker variable"),
        "unknown variable",
    )
    .help(help)
}

struct Parser<'t> {
    text: &'t str,
    tokens: &'t [(Token, Range<usize>)],
    at: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn here(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        self.tokens
            .get(self.at)
            .map_or(end..end, |(_, range)| range.clone())
    }

    fn either(&mut self, depth: usize) -> Result<(), Mistake> {
        self.both(depth)?;
        while self.peek() == Some(&Token::Or) {
            self.at += 1;
            self.both(depth)?;
        }
        Ok(())
    }

    fn both(&mut self, depth: usize) -> Result<(), Mistake> {
        self.one(depth)?;
        while self.peek() == Some(&Token::And) {
            self.at += 1;
            self.one(depth)?;
        }
        Ok(())
    }

    fn one(&mut self, depth: usize) -> Result<(), Mistake> {
        if self.peek() != Some(&Token::Open) {
            return self.comparison();
        }
        let open = self.here();
        if depth == MAX_DEPTH {
            return Err(Mistake::at(
                open,
                "the marker is nested too deep",
                "deeper than 32 parentheses",
            ));
        }
        self.at += 1;
        self.either(depth + 1)?;
        if self.peek() != Some(&Token::Close) {
            return Err(Mistake::at(
                open,
                "a parenthesis in the marker is not closed",
                "no `)` follows",
            ));
        }
        self.at += 1;
        Ok(())
    }

    fn comparison(&mut self) -> Result<(), Mistake> {
        let start = self.at;
        let left = self.operand()?;
        let Some(Token::Operator(operator)) = self.peek() else {
            let range = self.tokens[start].1.clone();
            return Err(Mistake::at(
                range,
                "the marker compares with nothing",
                "an operator must follow",
            )
            .help("write a comparison such as `python_version < '3.13'`"));
        };
        self.at += 1;
        let right = self.operand()?;
        let whole = self.tokens[start].1.start..self.tokens[start + 2].1.end;
        match (left, right) {
            (Token::Text(_), Token::Text(_)) => {
                Err(
                    Mistake::at(whole, "the marker compares two strings", "no variable here")
                        .help("write a comparison such as `sys_platform == 'linux'`"),
                )
            }
            (Token::Variable(name), Token::Text(value)) => {
                self.version(name, operator, value, start + 2)
            }
            (Token::Text(value), Token::Variable(name)) => {
                self.version(name, operator, value, start)
            }
            _ => Ok(()),
        }
    }

    fn operand(&mut self) -> Result<&'t Token, Mistake> {
        match self.peek() {
            Some(token @ (Token::Variable(_) | Token::Text(_))) => {
                self.at += 1;
                Ok(token)
            }
            _ => Err(Mistake::at(
                self.here(),
                "the marker lacks a variable or a string",
                "a variable or quoted string belongs here",
            )
            .help("write a comparison such as `python_version < '3.13'`")),
        }
    }

    /// Version variables are compared with versions.
    fn version(
        &self,
        name: &str,
        operator: &str,
        value: &str,
        token: usize,
    ) -> Result<(), Mistake> {
        if !VERSION_VARIABLES.contains(&name) || operator == "===" {
            return Ok(());
        }
        let good = match operator {
            "in" | "not in" => value
                .split([' ', ','])
                .filter(|v| !v.is_empty())
                .all(|v| Version::from_str(v).is_ok()),
            "==" | "!=" => VersionPattern::from_str(value).is_ok(),
            _ => Version::from_str(value).is_ok(),
        };
        if good {
            return Ok(());
        }
        Err(Mistake::at(
            self.tokens[token].1.clone(),
            format!("`{name}` is compared with `{value}`, which is not a version"),
            "not a version",
        )
        .help("write a version such as '3.13'"))
    }
}
