//! `.dockerignore`: which files of a project stay out of images (Docker's "build context" reference, `.dockerignore`
//! files). Its patterns are Go's `filepath.Match` with `**`, not gitignore's: they are anchored at the project's
//! folder, and the last one that matches a path or one of its parents decides.

/// A parsed `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub struct IgnoreFile {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    tokens: Vec<Token>,
    includes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`: anything but `/`.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: nothing, or anything that ends in `/`.
    Folders,
    /// `[a-z]`, `[^a-z]`
    Class {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

impl IgnoreFile {
    /// Parses the text of a `.dockerignore`.
    ///
    /// # Errors
    /// The number of the first line whose pattern is broken.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (includes, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                if includes {
                    return Err(index + 1);
                }
                continue;
            }
            let tokens = tokens(pattern.as_bytes()).ok_or(index + 1)?;
            patterns.push(Pattern { tokens, includes });
        }
        Ok(Self { patterns })
    }

    /// Whether the file or folder at `path` (relative, `/` between names) stays out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.patterns {
            if pattern.includes == excluded && pattern.matches_or_parent(path) {
                excluded = !pattern.includes;
            }
        }
        excluded
    }

    /// Whether something below an excluded folder can be included again.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.includes)
    }
}

impl Pattern {
    fn matches_or_parent(&self, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        parents
            .chain([path])
            .any(|path| matches(&self.tokens, path.as_bytes()))
    }
}

/// Go's `filepath.Clean`, and no leading `/`; empty for what can match nothing.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

fn tokens(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        at += 1;
        tokens.push(match byte {
            b'*' if pattern.get(at) == Some(&b'*') => {
                at += 1;
                if pattern.get(at) == Some(&b'/') {
                    at += 1;
                }
                if at == pattern.len() {
                    Token::Rest
                } else {
                    Token::Folders
                }
            }
            b'*' => Token::Star,
            b'?' => Token::One,
            b'[' => class(pattern, &mut at)?,
            b'\\' => {
                at += 1;
                Token::Byte(*pattern.get(at - 1)?)
            }
            other => Token::Byte(*other),
        });
    }
    Some(tokens)
}

fn class(pattern: &[u8], at: &mut usize) -> Option<Token> {
    let next = |at: &mut usize| {
        *at += 1;
        pattern.get(*at - 1).copied()
    };
    let negated = pattern.get(*at) == Some(&b'^');
    if negated {
        *at += 1;
    }
    let mut ranges = Vec::new();
    loop {
        let low = match next(at)? {
            b']' if !ranges.is_empty() => return Some(Token::Class { ranges, negated }),
            b'\\' => next(at)?,
            b']' | b'-' => return None,
            other => other,
        };
        let high = match pattern.get(*at) {
            Some(b'-') => {
                *at += 1;
                match next(at)? {
                    b'\\' => next(at)?,
                    b']' | b'-' => return None,
                    other => other,
                }
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

/// Whether the tokens match the whole path. Takes time in proportion to the product of both lengths.
fn matches(tokens: &[Token], path: &[u8]) -> bool {
    // `fits[p]`: the tokens looked at so far, from the last on, match `path[p..]`.
    let mut fits = vec![false; path.len() + 1];
    fits[path.len()] = true;
    for token in tokens.iter().rev() {
        let mut now = vec![false; path.len() + 1];
        for at in (0..=path.len()).rev() {
            let byte = path.get(at).copied();
            let ahead = |fits: &[bool]| fits.get(at + 1).copied().unwrap_or(false);
            now[at] = match token {
                Token::Byte(wanted) => byte == Some(*wanted) && ahead(&fits),
                Token::One => byte.is_some_and(|byte| byte != b'/') && ahead(&fits),
                Token::Class { ranges, negated } => {
                    let inside = |byte| {
                        ranges
                            .iter()
                            .any(|(low, high)| (*low..=*high).contains(&byte))
                    };
                    byte.is_some_and(|byte| byte != b'/' && inside(byte) != *negated)
                        && ahead(&fits)
                }
                Token::Star => fits[at] || (byte.is_some_and(|byte| byte != b'/') && ahead(&now)),
                Token::Rest => fits[at] || ahead(&now),
                Token::Folders => {
                    fits[at]
                        || path[at..]
                            .iter()
                            .enumerate()
                            .any(|(n, byte)| *byte == b'/' && fits[at + n + 1])
                }
            };
        }
        fits = now;
    }
    fits[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_docker_documents() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "*/temp*",
                &["a/temporary.txt", "a/temp", "a/temp/b"],
                &["temp", "a/b/temp"],
            ),
            ("*/*/temp*", &["a/b/temporary.txt"], &["a/temp"]),
            ("temp?", &["tempa", "tempb"], &["temp", "tempab", "a/tempa"]),
            ("**/*.go", &["a.go", "x/y/z.go"], &["a.gox", "go"]),
            ("docs", &["docs", "docs/a/b"], &["a/docs", "docs2"]),
            ("/docs/", &["docs", "docs/a"], &["a/docs"]),
            ("a/**", &["a/b", "a/b/c"], &["b/a"]),
            ("a/**/z", &["a/z", "a/b/c/z"], &["a/bz", "az"]),
            (
                "**/secret",
                &["secret", "a/b/secret", "a/secret/x"],
                &["secrets", "a/xsecret"],
            ),
            ("[a-c]x", &["ax", "cx"], &["dx", "/x"]),
            ("[^a-c]x", &["dx"], &["ax"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("{a,b}", &["{a,b}"], &["a", "b"]),
            ("./x/../y", &["y"], &["x"]),
            ("*", &["a", ".env", "a/b"], &[]),
            ("..", &[], &["a"]),
        ];
        for (pattern, yes, no) in cases {
            let ignore = IgnoreFile::parse(pattern).unwrap();
            for path in *yes {
                assert!(ignore.excludes(path), "{pattern} must match {path}");
            }
            for path in *no {
                assert!(!ignore.excludes(path), "{pattern} must not match {path}");
            }
        }
    }

    #[test]
    fn the_last_match_decides() {
        let ignore = IgnoreFile::parse("\u{feff}*.md\n!README*.md\nREADME-secret.md\n").unwrap();
        assert!(ignore.excludes("a.md") && ignore.excludes("README-secret.md"));
        assert!(!ignore.excludes("README.md") && ignore.has_exceptions());
        let all = IgnoreFile::parse("*\n!src\n# *\n  \n").unwrap();
        assert!(!all.excludes("src/a/b") && all.excludes("x/src"));
    }

    #[test]
    fn broken_patterns_name_their_line() {
        for (text, line) in [
            ("a\n[x", 2),
            ("!", 1),
            ("[]", 1),
            ("x\\", 1),
            ("\n\n[a-]", 3),
        ] {
            assert_eq!(IgnoreFile::parse(text).unwrap_err(), line, "{text}");
        }
        let hostile = IgnoreFile::parse(&"*a".repeat(500)).unwrap();
        assert!(!hostile.excludes(&format!("{}b", "a".repeat(2000))));
    }
}
