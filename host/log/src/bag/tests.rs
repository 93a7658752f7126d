//! Our own bags, every way to damage them, and bags that others made.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::testing::corpora;

fn bag() -> Files {
    let payload = [("data/a.txt", "hello\n"), ("data/log/b.cbor", ""), ("data/z-9.csv", "1,2\n")];
    let payload = payload.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let info =
        [("External-Identifier", "case-7"), ("Source-Organization", "Plant 1\nnorth\u{1b}[31m"), ("Contact", "")];
    seal(payload, &info.map(|(label, value)| (label.to_owned(), value.to_owned())))
}

fn text(files: &Files, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn a_sealed_bag_is_golden_and_fits_both_profiles() {
    let files = bag();
    assert_eq!(text(&files, BAGIT), "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n");
    assert_eq!(
        text(&files, BAG_INFO),
        "External-Identifier: case-7\nSource-Organization: Plant 1 north [31m\nContact: -\nPayload-Oxum: 10.3\n"
    );
    assert_eq!(
        text(&files, MANIFEST),
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  data/a.txt\n\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  data/log/b.cbor\n\
         52186c933993da4082b3cdc7c40bb4bf735b391ff54a2ef78c037dda6c38a680  data/z-9.csv\n"
    );
    let tags: Vec<String> = text(&files, TAGMANIFEST).lines().map(|line| line[66..].to_owned()).collect();
    assert_eq!(tags, [BAG_INFO, BAGIT, MANIFEST]);
    assert_eq!(check(&files, Profile::Sealed), []);
    assert_eq!(check(&files, Profile::BagIt10), []);
    assert_eq!(info(&text(&files, BAG_INFO)).unwrap()[0].1, "case-7");
    let empty = seal(Files::new(), &[]);
    assert_eq!(check(&empty, Profile::Sealed), []);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let files = bag();
    for (path, bytes) in &files {
        for at in 0..bytes.len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut changed = files.clone();
                changed.get_mut(path).unwrap()[at] ^= mask;
                assert_ne!(check(&changed, Profile::Sealed), [], "{path} byte {at} ^ {mask:#x}");
            }
        }
    }
}

#[test]
fn every_other_damage_is_noticed_and_named() {
    let files = bag();
    let damaged = |damage: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        damage(&mut files);
        check(&files, Profile::Sealed)
    };
    let edit = |name: &'static str, change: &'static dyn Fn(String) -> String| {
        move |files: &mut Files| {
            let changed = change(text(files, name));
            files.insert(name.to_owned(), changed.into_bytes());
        }
    };
    for path in files.keys() {
        let problems = damaged(&|files| drop(files.remove(path)));
        assert!(problems.iter().any(|p| p.path == *path), "removed {path}: {problems:?}");
    }
    for added in [
        "data/new",
        "new.txt",
        "fetch.txt",
        "manifest-md5.txt",
        "data/../x",
        "/etc/x",
        "data\\x",
        "data/ x",
        "data//x",
        "data/A.TXT",
        "data/a.txt/x",
        "data/CON. ",
        "data/ü",
        "~/x",
        "data/x.",
    ] {
        let problems = damaged(&|files| drop(files.insert(added.to_owned(), Vec::new())));
        assert!(problems.iter().any(|p| p.path == added), "added {added}: {problems:?}");
    }
    let problems = damaged(&|files| {
        let (a, z) = (files["data/a.txt"].clone(), files["data/z-9.csv"].clone());
        files.insert("data/a.txt".into(), z);
        files.insert("data/z-9.csv".into(), a);
    });
    assert!(problems.iter().any(|p| p.path == "data/a.txt"), "{problems:?}");
    for change in [
        &(|text: String| format!("{text}{text}")) as &'static dyn Fn(String) -> String,
        &|text| text.lines().rev().collect::<Vec<_>>().join("\n") + "\n",
        &|text| text.replace('\n', "\r\n"),
        &|text| text.replace("  ", " *"),
        &|text| text.replace("  ", "   "),
        &|text| text.to_uppercase(),
        &|text| text.trim_end().to_owned(),
        &|text| format!("{text}\n"),
        &|text| format!("\u{feff}{text}"),
        &|text| text.replace(": ", ":"),
        &|_| String::new(),
    ] {
        for name in [BAGIT, BAG_INFO, MANIFEST, TAGMANIFEST] {
            if change(text(&files, name)) != text(&files, name) {
                assert_ne!(damaged(&edit(name, change)), [], "{name}: {:?}", change(text(&files, name)));
            }
        }
    }
}

#[test]
#[should_panic(expected = "not a payload path")]
fn sealing_a_path_outside_is_a_bug() {
    seal([("data/../x".to_owned(), Vec::new())].into(), &[]);
}

#[test]
fn clean_paths() {
    for good in ["a", "data/log/x-1_2.cbor", "data/.hidden", "data/-x", "data/a..b"] {
        assert!(is_clean_path(good), "{good}");
    }
    for bad in [
        "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", "a b", "a\\b", "a\nb", "a:b", "~a", "a.", "é", "a*",
        "a%0A",
    ] {
        assert!(!is_clean_path(bad), "{bad}");
    }
    assert!(!is_clean_path(&"x".repeat(MAX_PATH_BYTES + 1)));
}

#[test]
fn bags_of_others() {
    let data = |text: &str| text.as_bytes().to_vec();
    let sum = crate::Hash::of(b"x").to_string();
    let base: Files = [
        (BAGIT.to_owned(), data("BagIt-Version: 1.0\r\nTag-File-Character-Encoding: ISO-8859-1")),
        ("data/a b%\n".to_owned(), data("x")),
        ("notes.txt".to_owned(), data("listed nowhere")),
        (MANIFEST.to_owned(), data(&format!("{} \t./data/a b%25%0A\r", sum.to_uppercase()))),
        (BAG_INFO.to_owned(), data("Contact: A\n  folded\nX: 1\nX: 2\nPayload-Oxum: 1.1\n")),
    ]
    .into();
    assert_eq!(check(&base, Profile::BagIt10), []);
    assert_ne!(check(&base, Profile::Sealed), []);
    for (name, content) in [
        (BAGIT, "BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n"),
        (BAGIT, "\u{feff}BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"),
        (BAGIT, "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n\n"),
        (BAGIT, "BagIt-Version: 1.0\nTag-File-Character-Encoding: KLINGON\n"),
        (BAG_INFO, "Payload-Oxum: 2.1\n"),
        (BAG_INFO, "Payload-Oxum: 1.1\nPayload-Oxum: 1.1\n"),
        (BAG_INFO, "no colon\n"),
        (BAG_INFO, " folded under nothing\n"),
        (MANIFEST, ""),
        (MANIFEST, "00\n"),
        ("manifest-sha512.txt", ""),
        ("manifest-md5.txt", "00 data/other\n"),
        ("data/b", "unlisted"),
        ("tagmanifest-sha256.txt", "00 bagit.txt\n"),
        ("tagmanifest-sha256.txt", "00 missing.txt\n"),
        ("fetch.txt", "http://x/ 1 data/missing\n"),
        ("fetch.txt", "http://x/ 1 bagit.txt\n"),
    ] {
        let mut files = base.clone();
        files.insert(name.to_owned(), data(content));
        assert_ne!(check(&files, Profile::BagIt10), [], "{name}: {content:?}");
    }
    for path in ["../x", "/x", "data/../../x", "~/x", "data\\..\\x", "C:/x"] {
        let mut files = base.clone();
        files.insert(path.to_owned(), data("x"));
        let manifest = format!("{}\n{sum}  {path}\n", text(&base, MANIFEST));
        files.insert(MANIFEST.to_owned(), manifest.into_bytes());
        assert!(check(&files, Profile::BagIt10).iter().any(|p| p.what.contains("leaves the bag")), "{path}");
    }
    let utf16: Vec<u8> = format!("\u{feff}{sum}  data/a b%25%0A\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files = [
        (BAGIT.to_owned(), data("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-16\n")),
        ("data/a b%\n".to_owned(), data("x")),
        (MANIFEST.to_owned(), utf16),
    ];
    assert_eq!(check(&files.into(), Profile::BagIt10), []);
}

/// The conformance suite of the Library of Congress: valid bags pass, invalid ones do not.
#[test]
fn conformance_suite() {
    let Some(root) = corpora::corpus("bagit/v1.0") else { return };
    for (kind, valid) in [("valid", true), ("invalid", false)] {
        let mut bags: Vec<_> = std::fs::read_dir(root.join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
        bags.sort();
        assert!(!bags.is_empty());
        for bag in bags {
            let mut files = Files::new();
            read_folder(&bag, "", &mut files);
            let problems = check(&files, Profile::BagIt10);
            assert_eq!(problems.is_empty(), valid, "{}: {problems:?}", bag.display());
            println!("{kind} {}: {}", bag.display(), problems.first().map_or("ok".to_owned(), ToString::to_string));
        }
    }
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn hostile_bags_never_panic(
        bagit in "(BagIt-Version: 1.0\n)?(Tag-File-Character-Encoding: (UTF-8|UTF-16|ISO-8859-1)\n)?.{0,10}",
        tags in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 4),
        lines in "((00|ff)[ \t]{0,2}(data/|\\./|%|%0|%0A|é|[a-z])*(\n|\r|\r\n))*",
        path in "(data/)?\\PC{0,9}",
    ) {
        let mut files: Files = [(BAGIT.to_owned(), bagit.into_bytes()), (path, Vec::new())].into();
        files.insert("manifest-sha512.txt".into(), lines.clone().into_bytes());
        files.insert("fetch.txt".into(), lines.into_bytes());
        for (name, bytes) in [BAG_INFO, MANIFEST, TAGMANIFEST, "manifest-md5.txt"].iter().zip(tags) {
            files.insert((*name).to_owned(), bytes);
        }
        let _ = check(&files, Profile::BagIt10);
        prop_assert_ne!(check(&files, Profile::Sealed), []);
    }
}
