//! The grammar of the schema tables.

use crate::parse::{Role, Type, Versions, table};

const SMALL: &str = "\
api 9 Small

request 1-3 flexible 2+ unstable 4
  Names []string 0+ nullable 2+ default null
  Items []Item   1-2
    Id    int32 0+ default -1 ignorable
    Place Spot  0+
  Extra string   2+ tag 0 2+ default \"\"
  struct Spot
    Row int8 0+ inflexible

response 1-3
";

#[test]
fn table_yields_messages_structs_and_attributes() {
    let small = table(SMALL).unwrap();
    assert_eq!(small.api, Some((9, "Small".into())));
    let [request, response] = &small.messages[..] else { panic!("two messages") };
    assert_eq!((request.name.as_str(), request.role), ("SmallRequest", Role::Request));
    assert_eq!((request.valid, request.flexible), (Versions { min: 1, max: 3 }, Some(2)));
    assert_eq!((response.name.as_str(), response.flexible), ("SmallResponse", None));

    let names: Vec<&str> = request.structs.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["SmallRequest", "Item", "Spot"]);
    let [names, items, extra] = &request.structs[0].fields[..] else { panic!("three fields") };
    assert_eq!(names.ty, Type::Array(Box::new(Type::String)));
    assert_eq!(names.nullable, Some(Versions { min: 2, max: i16::MAX }));
    assert_eq!(names.default.as_deref(), Some("null"));
    assert_eq!(items.versions, Versions { min: 1, max: 2 });
    assert_eq!((extra.tag, extra.default.as_deref()), (Some(0), Some("\"\"")));
    let [id, place] = &request.structs[1].fields[..] else { panic!("two fields") };
    assert_eq!((id.ignorable, id.default.as_deref()), (true, Some("-1")));
    assert_eq!(place.ty, Type::Struct("Spot".into()));
    assert!(request.structs[2].fields[0].inflexible);
}

#[test]
fn table_that_breaks_a_rule_is_refused() {
    let bad = [
        ("  Names []string 0+", "  Names []text 0+", "unknown type"),
        ("  Names []string 0+", "  Names [][]string 0+", "array of arrays"),
        ("  Names []string 0+", "  Names []string 3-1", "empty range"),
        ("  Names []string 0+", " Names []string 0+", "indentation"),
        ("  Names []string 0+", "    Names []string 0+", "indented below"),
        ("  Names []string 0+", "  Items []string 0+", "declared twice"),
        ("nullable 2+", "nullable", "no version range"),
        ("ignorable", "optional", "unknown attribute"),
        ("tag 0 2+", "tag 0 3+", "tagged versions"),
        ("unstable 4", "unstable 3", "unstable"),
        ("    Row int8 0+ inflexible", "    Row Item 0+", "contains itself"),
        ("    Row int8 0+ inflexible\n", "", "has no fields"),
        ("Place Spot ", "Place Spit ", "has no fields"),
        ("api 9 Small", "", "no api line"),
    ];
    for (good, broken, reason) in bad {
        assert!(SMALL.contains(good), "{good}");
        let error = table(&SMALL.replace(good, broken)).expect_err(broken);
        assert!(error.contains(reason), "{broken}: {error}");
    }
}
