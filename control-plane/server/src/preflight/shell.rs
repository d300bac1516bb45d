//! Command lines as a POSIX shell would split them (POSIX.1-2024, Shell Command Language §2.2 to §2.6), without running anything.
//!
//! INVARIANT: a word of which a part is not known (an unset variable, the output of a command) says so.

use std::collections::BTreeMap;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word {
    /// With what is known put in; what is not known stands as it is written.
    pub(super) text: String,
    /// What is not known of it, e.g. `$REGION`.
    pub(super) unknown: Option<String>,
}

/// A simple command, and the line of the script in which it begins, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) words: Vec<Word>,
    pub(super) line: usize,
    /// Its here-document, if it has one.
    pub(super) input: Option<Word>,
}

/// Splits a script. Variables that it sets to what is known are known from then on.
pub(super) fn commands(script: &str, known: &mut BTreeMap<String, String>) -> Result<Vec<Simple>, String> {
    let mut reader = Reader {
        rest: script.chars().peekable(),
        line: 0,
        depth: 0,
        subshells: 0,
        chained: false,
        known: known.clone(),
        all: Vec::new(),
        documents: Vec::new(),
    };
    reader.run()?;
    *known = reader.known;
    Ok(reader.all)
}

struct Reader<'s> {
    rest: std::iter::Peekable<std::str::Chars<'s>>,
    line: usize,
    known: BTreeMap<String, String>,
    all: Vec<Simple>,
    /// How many of `if`, loops, `case` and functions are open.
    depth: usize,
    /// How many brackets are open.
    subshells: usize,
    /// Whether the command may be skipped, or runs in a shell of its own: it stands beside `&&`, `||`, `|` or `&`.
    chained: bool,
    /// Here-documents that begin after this line (§2.7.4).
    documents: Vec<Document>,
}

/// A here-document that has not begun yet.
struct Document {
    end: String,
    /// Nothing in it is expanded.
    quoted: bool,
    /// Tabs at the begin of its lines are no part of it.
    stripped: bool,
}

// === impl Reader ===

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn run(&mut self) -> Result<(), String> {
        let mut words: Vec<Word> = Vec::new();
        let mut word: Option<Word> = None;
        let mut begin = self.line;
        while let Some(letter) = self.rest.peek().copied() {
            if words.is_empty() && word.is_none() {
                begin = self.line;
            }
            self.next();
            match letter {
                '#' if word.is_none() => {
                    while self.rest.peek().is_some_and(|letter| *letter != '\n') {
                        self.next();
                    }
                }
                '\n' | ';' | '|' | '&' | '(' | ')' => {
                    // `2>&1` is no end of a command.
                    if letter == '&' && word.as_ref().is_some_and(|word| word.text.ends_with('>')) {
                        word.get_or_insert_default().text.push('&');
                        continue;
                    }
                    words.extend(word.take());
                    let is_pair = matches!(letter, '|' | '&') && self.rest.peek() == Some(&letter);
                    let is_complete = !words.is_empty();
                    // What stands before `&&` and `||` is not skipped; both sides of a `|` are in a shell of their own.
                    self.chained |= matches!(letter, '|' | '&') && !is_pair;
                    self.end(&mut words, begin);
                    self.chained |= is_pair;
                    match letter {
                        '(' => self.subshells += 1,
                        ')' => self.subshells = self.subshells.saturating_sub(1),
                        '\n' | ';' if is_complete => self.chained = false,
                        '&' if is_complete && !is_pair => self.chained = false,
                        _ => {}
                    }
                    if letter == '\n' {
                        self.documents();
                    }
                }
                '<' if self.rest.peek() == Some(&'<') => {
                    words.extend(word.take());
                    self.next();
                    if self.rest.next_if_eq(&'<').is_none() {
                        self.document();
                    }
                    words.push(Word { text: "<<".to_owned(), unknown: Some("<<".to_owned()) });
                }
                ' ' | '\t' | '\r' => words.extend(word.take()),
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(other) => word.get_or_insert_default().text.push(other),
                },
                '\'' => {
                    let word = word.get_or_insert_default();
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(other) => word.text.push(other),
                            None => return Err("a `'` is not closed".to_owned()),
                        }
                    }
                }
                '"' => {
                    let mut quoted = word.take().unwrap_or_default();
                    loop {
                        match self.next() {
                            Some('"') => break,
                            Some('\\') => match self.next() {
                                Some('\n') => {}
                                Some(escaped @ ('"' | '\\' | '$' | '`')) => quoted.text.push(escaped),
                                Some(other) => quoted.text.extend(['\\', other]),
                                None => return Err("a `\"` is not closed".to_owned()),
                            },
                            Some('$') => self.dollar(&mut quoted)?,
                            Some('`') => self.backquoted(&mut quoted)?,
                            Some(other) => quoted.text.push(other),
                            None => return Err("a `\"` is not closed".to_owned()),
                        }
                    }
                    word = Some(quoted);
                }
                '$' => {
                    let mut open = word.take().unwrap_or_default();
                    self.dollar(&mut open)?;
                    word = Some(open);
                }
                '`' => {
                    let mut open = word.take().unwrap_or_default();
                    self.backquoted(&mut open)?;
                    word = Some(open);
                }
                other => word.get_or_insert_default().text.push(other),
            }
        }
        words.extend(word.take());
        self.end(&mut words, begin);
        Ok(())
    }

    /// After `<<`: how the here-document ends.
    fn document(&mut self) {
        let mut document = Document { end: String::new(), quoted: false, stripped: false };
        while let Some(letter) = self.rest.next_if(|letter| matches!(letter, '-' | ' ')) {
            document.stripped |= letter == '-';
        }
        while let Some(letter) =
            self.rest.next_if(|letter| !letter.is_whitespace() && !";|&<>()".contains(*letter))
        {
            if matches!(letter, '\'' | '"' | '\\') {
                document.quoted = true;
            } else {
                document.end.push(letter);
            }
        }
        self.documents.push(document);
    }

    /// Here-documents are no commands. The last command of the line may read one; of several it is not looked at.
    fn documents(&mut self) {
        let documents = std::mem::take(&mut self.documents);
        let is_one = documents.len() == 1;
        for Document { end, quoted, stripped } in documents {
            let mut text = String::new();
            loop {
                let mut line = String::new();
                let mut is_last = true;
                while let Some(letter) = self.next() {
                    if letter == '\n' {
                        is_last = false;
                        break;
                    }
                    line.push(letter);
                }
                if is_last || line.trim() == end {
                    break;
                }
                text.push_str(if stripped { line.trim_start_matches('\t') } else { &line });
                text.push('\n');
            }
            let is_open = !quoted && text.contains(['$', '`', '\\']);
            let unknown = is_open.then(|| "$ in a here-document".to_owned());
            if let Some(last) = self.all.last_mut().filter(|_| is_one) {
                last.input = Some(Word { text, unknown });
            }
        }
    }

    /// A command is complete. What it sets is remembered if it is set for certain, and else no longer known; words of the language
    /// before it are left out.
    fn end(&mut self, words: &mut Vec<Word>, line: usize) {
        const LANGUAGE: [&str; 11] =
            ["then", "do", "else", "elif", "if", "while", "until", "!", "{", "time", "exec"];
        let all = std::mem::take(words);
        let mut rest = all.into_iter().peekable();
        let mut set = Vec::new();
        while let Some(word) = rest.next_if(|word| {
            LANGUAGE.contains(&word.text.as_str())
                || word.text == "export"
                || assignment(&word.text).is_some()
                || appended(&word.text).is_some()
        }) {
            // Of a function it is not known whether it is called.
            if matches!(word.text.as_str(), "if" | "while" | "until" | "{") {
                self.depth += 1;
            }
            match assignment(&word.text) {
                Some((name, value)) => {
                    set.push((name.to_owned(), word.unknown.is_none().then(|| value.to_owned())));
                }
                None => set.extend(appended(&word.text).map(|name| (name.to_owned(), None))),
            }
        }
        let words: Vec<Word> = rest.collect();
        let certain = self.depth == 0 && self.subshells == 0 && !self.chained;
        // Before a command it is for that command only, which was read before.
        if words.is_empty() {
            for (name, value) in set {
                match value.filter(|_| certain) {
                    Some(value) => drop(self.known.insert(name, value)),
                    None => drop(self.known.remove(&name)),
                }
            }
            return;
        }
        self.forget(&words);
        self.all.push(Simple { words, line, input: None });
    }

    /// Variables that a command of the shell itself sets to something that is not known.
    fn forget(&mut self, words: &[Word]) {
        let Some((first, rest)) = words.split_first() else { return };
        match first.text.as_str() {
            "for" | "select" | "case" => self.depth += 1,
            "fi" | "done" | "esac" | "}" => self.depth = self.depth.saturating_sub(1),
            // Whatever it says, it may set anything.
            "eval" | "source" | "." => return self.known.clear(),
            _ => {}
        }
        let is_setting = matches!(
            first.text.as_str(),
            "for"
                | "select"
                | "read"
                | "unset"
                | "local"
                | "declare"
                | "typeset"
                | "readonly"
                | "mapfile"
                | "readarray"
                | "getopts"
                | "printf"
                | "let"
        );
        if is_setting {
            for word in rest {
                let name = word.text.split_once('=').map_or(word.text.as_str(), |(name, _)| name);
                self.known.remove(name.trim_end_matches('+'));
            }
        }
    }

    /// After a `$`.
    fn dollar(&mut self, word: &mut Word) -> Result<(), String> {
        match self.rest.peek().copied() {
            Some('(') => {
                let inner = self.balanced('(', ')')?;
                unknown(word, format!("$({inner})"));
            }
            // GitLab's `$[[ inputs.x ]]`.
            Some('[') => {
                let inner = self.balanced('[', ']')?;
                unknown(word, format!("$[{inner}]"));
            }
            Some('{') => {
                let inner = self.balanced('{', '}')?;
                match self.known.get(&inner) {
                    Some(value) => word.text.push_str(value),
                    None => unknown(word, format!("${{{inner}}}")),
                }
            }
            Some(letter) if letter.is_ascii_alphabetic() || letter == '_' => {
                let mut name = String::new();
                while let Some(letter) =
                    self.rest.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                {
                    name.push(letter);
                }
                match self.known.get(&name) {
                    Some(value) => word.text.push_str(value),
                    None => unknown(word, format!("${name}")),
                }
            }
            Some(letter) if letter.is_ascii_digit() || "@*?#!$-".contains(letter) => {
                self.next();
                unknown(word, format!("${letter}"));
            }
            _ => word.text.push('$'),
        }
        Ok(())
    }

    fn backquoted(&mut self, word: &mut Word) -> Result<(), String> {
        let mut inner = String::new();
        loop {
            match self.next() {
                Some('`') => break,
                Some(other) => inner.push(other),
                None => return Err("a \"`\" is not closed".to_owned()),
            }
        }
        unknown(word, format!("`{inner}`"));
        Ok(())
    }

    /// What is between brackets, nested ones included. Tekton's `$(params.x)` is of this form, too.
    fn balanced(&mut self, open: char, close: char) -> Result<String, String> {
        self.next();
        let (mut depth, mut inner) = (1, String::new());
        loop {
            match self.next() {
                Some(letter) if letter == open => {
                    depth += 1;
                    inner.push(letter);
                }
                Some(letter) if letter == close => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(inner);
                    }
                    inner.push(letter);
                }
                Some(letter) => inner.push(letter),
                None => return Err(format!("a `{open}` is not closed")),
            }
        }
    }
}

fn unknown(word: &mut Word, written: String) {
    word.text.push_str(&written);
    word.unknown.get_or_insert(written);
}

/// `NAME=value`
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let mut letters = name.chars();
    let first = letters.next()?;
    let fits = (first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    fits.then_some((name, value))
}

/// `NAME+=value`
fn appended(text: &str) -> Option<&str> {
    let (name, _) = text.split_once("+=")?;
    assignment(&format!("{name}=")).map(|_| name)
}
