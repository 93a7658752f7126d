//! The labels column of hb's own export: `asset=m1;site=lab`, sorted, with `%XX` for what would be mistaken.

/// Reads the column. The error says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("labels: `{pair}` has no `=`"))?;
        let key = unescape(key)?;
        if labels.iter().any(|(known, _)| *known == key) {
            return Err(format!("labels: `{key}` is there twice"));
        }
        labels.push((key, unescape(value)?));
    }
    Ok(labels)
}

fn unescape(text: &str) -> Result<String, String> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let bad = || format!("labels: `{text}` has a bad `%` escape");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [a, b, tail @ ..] = tail else { return Err(bad()) };
            let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(bad);
            bytes.push((digit(*a)? * 16 + digit(*b)?) as u8);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("asset=m1;site=lab"), Ok(vec![pair("asset", "m1"), pair("site", "lab")]));
        assert_eq!(
            parse("a%3Bb=1%2C2%3D%25;u=%C3%A9;e="),
            Ok(vec![pair("a;b", "1,2=%"), pair("u", "é"), pair("e", "")])
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("asset"), Err("labels: `asset` has no `=`".to_owned()));
        assert_eq!(parse("a=1;a=2"), Err("labels: `a` is there twice".to_owned()));
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(parse(text).unwrap_err().contains("bad `%` escape"), "{text}");
        }
    }
}
