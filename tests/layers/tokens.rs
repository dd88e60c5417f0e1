//! Rust source to tokens, just well enough to find modules and imports: comments are dropped, a
//! string is one token. Understands no grammar.

/// A word, `::`, a string with its quotes, or a single character.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1 };
    let mut found = Vec::new();
    while !lexer.rest.is_empty() {
        let line = lexer.line;
        let (bytes, keep) = lexer.next_bytes();
        let text = lexer.take(bytes);
        if keep {
            found.push(Token { text: text.to_owned(), line });
        }
    }
    found
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// How long the next piece is, and whether it is a token.
    fn next_bytes(&self) -> (usize, bool) {
        let rest = self.rest;
        let first = rest.chars().next().expect("checked by the caller");
        if first.is_whitespace() {
            (first.len_utf8(), false)
        } else if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment_bytes(rest), false)
        } else if let Some(bytes) = string_bytes(rest) {
            (bytes, true)
        } else if first == '\'' {
            (quote_bytes(rest), false)
        } else if first.is_alphanumeric() || first == '_' {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            (rest.find(|c| !is_part(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), true)
        }
    }
}

/// Comments of this kind may be nested.
fn block_comment_bytes(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        let (step, change) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Bytes of a string that begins here, be it `"…"`, `b"…"`, `c"…"`, `r"…"` or `br##"…"##`.
fn string_bytes(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let hashes = rest[prefix..].find(|c| c != '#')?;
    let open = prefix + hashes;
    if prefix > 2 || !rest[open..].starts_with('"') {
        return None;
    }
    let body = open + 1;
    if rest[..prefix].contains('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
    }
    (hashes == 0).then(|| body + escaped_bytes(&rest[body..], b'"'))
}

/// Bytes up to and with the end quote, which a backslash hides.
fn escaped_bytes(rest: &str, end: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        if byte == end && !escaped {
            return at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    rest.len()
}

/// Bytes of a character's literal, or of the quote of a lifetime alone.
fn quote_bytes(rest: &str) -> usize {
    let mut characters = rest[1..].chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => 1 + escaped_bytes(&rest[1..], b'\''),
        (Some(character), Some('\'')) => 2 + character.len_utf8(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_and_paths_are_tokens_and_comments_are_none() {
        let source = "use a::b_1; // use c;\n/* use /* d */ e; */ fn f<'a>(x: &'a u8) { '}' }";
        let expected = "use a :: b_1 ; fn f < a > ( x : & a u8 ) { }";
        assert_eq!(texts(source).join(" "), expected);
    }

    #[test]
    fn a_string_is_one_token_whatever_is_in_it() {
        for string in [r#""use a::b; \" //""#, r##"r#"a " b"#"##, r#"br"\""#, r#"b"\\""#, "\"\""] {
            assert_eq!(texts(&format!("x({string});")), ["x", "(", string, ")", ";"]);
        }
        assert_eq!(texts(r"f('\'', '\\', '/', 'é') // x"), ["f", "(", ",", ",", ",", ")"]);
    }

    #[test]
    fn lines_count_within_strings_and_comments() {
        let found = tokens("a\n/* \n */ \"\n\" b // x\nc");
        let lines: Vec<_> = found.iter().map(|token| (token.text.as_str(), token.line)).collect();
        assert_eq!(lines, [("a", 1), ("\"\n\"", 3), ("b", 4), ("c", 5)]);
    }
}
