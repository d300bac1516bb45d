//! A request from a pasted `curl` command line.
//!
//! The line is read as a POSIX shell would split it; nothing is run, no variable is expanded and no file is read. What
//! cannot be known from the line is noted.

/// What a `curl` command would send, as far as the line says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CurlRequest {
    /// As sent.
    pub method: String,
    /// As written.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as far as the line says it; absent: there is none.
    pub data: Option<String>,
    /// What is not known from the line alone.
    pub notes: Vec<String>,
}

/// Whether a text is a `curl` command.
pub fn is_curl(text: &str) -> bool {
    let text = text.trim_start();
    let text = text.strip_prefix("$ ").unwrap_or(text);
    text.split_whitespace().next().is_some_and(|word| word == "curl" || word.ends_with("/curl"))
}

/// Options with an argument that does not change what rules see.
const WITH_ARGUMENT: [&str; 38] = [
    "-o",
    "--output",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--cacert",
    "--capath",
    "--resolve",
    "--connect-to",
    "-x",
    "--proxy",
    "-w",
    "--write-out",
    "--retry",
    "--retry-delay",
    "--key",
    "--pass",
    "--cert-type",
    "--interface",
    "-c",
    "--cookie-jar",
    "-D",
    "--dump-header",
    "--stderr",
    "--limit-rate",
    "--ciphers",
    "--tls-max",
    "--noproxy",
    "-U",
    "--proxy-user",
    "-K",
    "--config",
    "--unix-socket",
    "--max-redirs",
    "-z",
    "--time-cond",
    "-y",
    "-Y",
];

/// Reads a command line.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> Result<CurlRequest, String> {
    let words = split(text)?;
    let mut words = words.into_iter().skip_while(|word| word == "$").peekable();
    words.next();
    let mut request = CurlRequest::default();
    let (mut method, mut has_body, mut is_get, mut is_head, mut json) = (None, false, false, false, false);
    let mut urls = Vec::new();
    while let Some(word) = words.next() {
        if word == "|" || word == ">" || word == "&&" || word == ";" || word.starts_with('>') {
            break;
        }
        let switches = switches(&word);
        is_get |= switches.contains('G');
        is_head |= switches.contains('I');
        let (name, attached) = option(&word);
        let mut argument =
            || attached.clone().or_else(|| words.next()).ok_or(format!("`{name}` lacks its argument"));
        match name.as_str() {
            "-X" | "--request" => method = Some(argument()?),
            "-H" | "--header" => request.header(&argument()?),
            "--url" => urls.push(argument()?),
            "-A" | "--user-agent" => request.headers.push(("user-agent".to_owned(), argument()?)),
            "-e" | "--referer" => request.headers.push(("referer".to_owned(), argument()?)),
            "-b" | "--cookie" => request.headers.push(("cookie".to_owned(), argument()?)),
            "--oauth2-bearer" => {
                let token = argument()?;
                request.headers.push(("authorization".to_owned(), format!("Bearer {token}")));
            }
            "-u" | "--user" => {
                argument()?;
                request.headers.push(("authorization".to_owned(), "Basic …".to_owned()));
            }
            "-E" | "--cert" => {
                argument()?;
                request.notes.push(
                    "what the client certificate says is not known here; say it with --peer".to_owned(),
                );
            }
            "-d" | "--data" | "--data-raw" | "--data-binary" | "--data-ascii" | "--data-urlencode" | "-F"
            | "--form" | "--form-string" => {
                request.data = Some(argument()?);
                has_body = true;
            }
            "--json" => {
                request.data = Some(argument()?);
                (has_body, json) = (true, true);
            }
            "-T" | "--upload-file" => {
                request.data = Some(argument()?);
                method.get_or_insert_with(|| "PUT".to_owned());
            }
            "-G" | "--get" => is_get = true,
            "-I" | "--head" => is_head = true,
            "-L" | "--location" => {
                request
                    .notes
                    .push("redirects are requests of their own; only the first is explained".to_owned());
            }
            known if WITH_ARGUMENT.contains(&known) => {
                argument()?;
            }
            // A switch without an argument, several of them in one word included.
            other if other.starts_with('-') && other != "-" => {}
            _ => urls.push(word),
        }
    }
    let implied = match () {
        () if is_head => "HEAD",
        () if has_body && !is_get => "POST",
        () => "GET",
    };
    request.method = method.unwrap_or_else(|| implied.to_owned());
    if is_get {
        // It becomes the query.
        request.data = None;
    }
    if json {
        request.default_header("content-type", "application/json");
    } else if has_body && !is_get {
        request.default_header("content-type", "application/x-www-form-urlencoded");
    }
    let mut urls = urls.into_iter();
    request.url = urls.next().ok_or("there is no URL in the command")?;
    if !request.url.contains("://") {
        // As curl guesses.
        request.url = format!("http://{}", request.url);
    }
    if urls.next().is_some() {
        request.notes.push("there are several URLs; only the first is explained".to_owned());
    }
    Ok(request)
}

/// Options of one letter that have an argument.
const SHORT: [char; 15] = ['X', 'H', 'd', 'F', 'u', 'A', 'e', 'b', 'T', 'o', 'm', 'x', 'w', 'E', 'c'];

/// The letters of a word such as `-sGd` that stand for themselves.
fn switches(word: &str) -> &str {
    let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-')).unwrap_or_default();
    letters.split(SHORT).next().unwrap_or_default()
}

/// An option's name, and its argument where that is in the same word: `-XPOST`, `--request=POST`.
fn option(word: &str) -> (String, Option<String>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, argument)) => (name.to_owned(), Some(argument.to_owned())),
            None => (word.to_owned(), None),
        };
    }
    let mut characters = word.chars();
    if characters.next() != Some('-') {
        return (word.to_owned(), None);
    }
    // `-sX POST` and `-sSXPOST`: switches before the option that has an argument.
    let switches = word[1..].find(SHORT);
    match switches.map(|at| word[1..].split_at(at)) {
        Some((_, rest)) => {
            let (name, argument) = rest.split_at(1);
            (format!("-{name}"), (!argument.is_empty()).then(|| argument.to_owned()))
        }
        None if word.contains('I') => ("-I".to_owned(), None),
        None if word.contains('G') => ("-G".to_owned(), None),
        None if word.contains('L') => ("-L".to_owned(), None),
        None => (word.to_owned(), None),
    }
}

/// Words of a command line: POSIX.1-2024 Shell Command Language §2.2 (quoting), and `$'…'` of §2.2.4.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(other) => word.push(other),
                        None => return Err("a `'` is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some('\n') => {}
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a `\"` is not closed".to_owned()),
                        },
                        Some(other) => word.push(other),
                        None => return Err("a `\"` is not closed".to_owned()),
                    }
                }
            }
            '$' if word.is_none() && characters.peek() == Some(&'\'') => {
                characters.next();
                let word = word.get_or_insert_default();
                loop {
                    match (characters.next(), characters.peek()) {
                        (Some('\''), _) => break,
                        (Some('\\'), Some('n')) => {
                            characters.next();
                            word.push('\n');
                        }
                        (Some('\\'), Some(escaped @ ('\'' | '"' | '\\'))) => {
                            word.push(*escaped);
                            characters.next();
                        }
                        (Some(other), _) => word.push(other),
                        (None, _) => return Err("a `$'` is not closed".to_owned()),
                    }
                }
            }
            '\\' => match characters.next() {
                // A line that goes on; Windows' line ends included.
                Some('\n') | None => {}
                Some('\r') if characters.peek() == Some(&'\n') => {
                    characters.next();
                }
                Some(other) => word.get_or_insert_default().push(other),
            },
            // The next command.
            '\n' if !words.is_empty() || word.is_some() => break,
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

// === impl CurlRequest ===

impl CurlRequest {
    fn header(&mut self, text: &str) {
        if let Some((name, value)) = text.split_once(':') {
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            if value.is_empty() {
                // curl's way of leaving out a header of its own.
                return;
            }
            self.headers.push((name, value));
        } else if text.starts_with('@') {
            self.notes.push("headers from a file are not read".to_owned());
        }
    }

    fn default_header(&mut self, name: &str, value: &str) {
        if !self.headers.iter().any(|(known, _)| known == name) {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(request: &CurlRequest) -> Vec<String> {
        request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn command_lines_are_read_as_shells_and_curl_do() {
        let url = "https://orders.sales.example/v1/orders/7?x=1&y=2";
        for (text, method, sent) in [
            (format!("curl '{url}'"), "GET", vec![]),
            (format!("$ curl -sS -X POST \"{url}\" -H 'X-A: b c'"), "POST", vec!["x-a: b c"]),
            (format!("curl -XDELETE '{url}'"), "DELETE", vec![]),
            (format!("curl -sXPUT '{url}' | jq ."), "PUT", vec![]),
            (
                format!("curl --request=PATCH \\\n  --url '{url}' \\\n  -H \"A: \\\"q\\\"\""),
                "PATCH",
                vec!["a: \"q\""],
            ),
            (
                format!("/usr/bin/curl -d '{{\"a\": 1}}' '{url}'"),
                "POST",
                vec!["content-type: application/x-www-form-urlencoded"],
            ),
            (format!("curl --json @body '{url}'"), "POST", vec!["content-type: application/json"]),
            (format!("curl -G -d a=1 '{url}' -o out"), "GET", vec![]),
            (format!("curl -sI '{url}' > file"), "HEAD", vec![]),
            (
                format!("curl --oauth2-bearer $T '{url}' -H $'B: it\\'s'"),
                "GET",
                vec!["authorization: Bearer $T", "b: it's"],
            ),
            (format!("curl -T file -k '{url}' -H 'Accept:'"), "PUT", vec![]),
            (format!("curl '{url}'\ncurl other"), "GET", vec![]),
        ] {
            assert!(is_curl(&text), "{text}");
            let request = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((request.method.as_str(), request.url.as_str()), (method, url), "{text}");
            assert_eq!(headers(&request), sent, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for text in ["curl", "curl -X", "curl 'a", "curl \"a", "curl $'a", "curl -s -L"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(!is_curl("wget x") && !is_curl("") && !is_curl("{}"));
        let request = parse("curl -E me.pem -L host/x").unwrap();
        assert_eq!(request.url, "http://host/x");
        assert_eq!((request.notes.len(), request.data), (2, None));
        assert_eq!(parse("curl -d '{}' host").unwrap().data.as_deref(), Some("{}"));
        assert_eq!(parse("curl -Gd a=1 host").unwrap().data, None);
    }
}
