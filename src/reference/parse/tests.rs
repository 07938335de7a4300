//! Tests of references with the built-in definition's.

use super::*;
use std::sync::Arc;

const SONGS: usize = 0;
const USERS: usize = 1;
const USER_LINES: &str = "user_id,user_name,user_age,user_country,created_at\n1,A,1,Peru,x\n2,B,2,,x\nx,C,3,Chile,x\n";

fn plan() -> Arc<Plan> {
    Plan::built_in().unwrap()
}

async fn parse(songs: &str) -> Result<References, CatalogueError> {
    References::parse(&plan(), vec![songs.as_bytes(), USER_LINES.as_bytes()]).await
}

/// The values of an attribute for a key, by the attribute's name.
fn values<'r>(references: &'r References, name: &str) -> &'r Values {
    references.values(plan().attributes.iter().position(|attribute| attribute.name == *name).unwrap())
}

fn text_key(references: &References, key: &str) -> Option<u32> {
    let Keys::Texts(keys) = references.keys(plan().references[SONGS]) else { panic!("no texts") };
    keys.find(key.as_bytes())
}

fn number_key(references: &References, key: i64) -> Option<u32> {
    let Keys::Numbers(keys) = references.keys(plan().references[USERS]) else { panic!("no numbers") };
    keys.find(key)
}

#[tokio::test]
async fn a_key_of_several_lines_has_the_first_s_values_and_many_of_all() {
    let songs = "\u{feff},track_id,artists,track_name,duration_ms,track_genre\n\
                 0,a,\"X;Y\",\"Say \"\"hi\"\", twice\",1000,pop\n1,b,,,5,\n2,a,X,other,9,rock\r\n\
                 3,a,X,other,9,pop\n4,c,Z,no duration,,pop\n5,,Z,no id,1,pop\n";
    let references = parse(songs).await.unwrap();
    assert_eq!((references.keys_of(SONGS), references.keys_of(USERS)), (2, 2));
    let (a, b) = (text_key(&references, "a").unwrap(), text_key(&references, "b").unwrap());
    assert_eq!(values(&references, "track_name").whole(a), Some("Say \"hi\", twice"));
    assert_eq!(values(&references, "artists").whole(a), Some("X;Y"));
    assert_eq!(values(&references, "duration_ms").number(a), 1000);
    let genres = values(&references, "track_genre");
    let texts = |key| genres.values(key).iter().map(|&code| genres.text(code)).collect::<Vec<_>>();
    assert_eq!((texts(a), texts(b)), (vec!["pop", "rock"], vec!["unknown"]));
    assert_eq!((genres.whole(a), genres.whole(b)), (Some("pop;rock"), None));
    assert_eq!((values(&references, "track_name").whole(b), values(&references, "duration_ms").number(b)), (None, 5));
    assert_eq!(text_key(&references, "c"), None);
    let country = |id| values(&references, "user_country").whole(number_key(&references, id).unwrap());
    assert_eq!((country(1), country(2)), (Some("Peru"), None));
    assert_eq!((references.skipped(SONGS), references.skipped(USERS)), (2, 1));
    let remarks = references.remarks.iter().map(|((of, problem), remark)| (*of, &problem[..8], &remark.first[..]));
    assert_eq!(
        remarks.collect::<Vec<_>>(),
        [(SONGS, "duration", &[6][..]), (SONGS, "track_id", &[7]), (USERS, "user_id ", &[4])]
    );
}

#[tokio::test]
async fn of_several_lines_with_a_key_the_first_counts() {
    let users = "user_id,user_country\n7,Peru\n7,Ghana\n007,Chile\n8,\n8,Ghana\n";
    let songs = "track_id,track_name,artists,track_genre,duration_ms\na,A,X,pop,1\na,B,Y,pop,2\n";
    let files = vec![songs.as_bytes(), users.as_bytes()];
    let references = References::parse(&plan(), files).await.unwrap();
    let country = |id| values(&references, "user_country").whole(number_key(&references, id).unwrap());
    assert_eq!((country(7), country(8)), (Some("Peru"), None));
    assert_eq!(values(&references, "track_name").whole(0), Some("A"));
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_cut_and_named() {
    let (long, genre) = ("é".repeat(300), "g".repeat(129));
    let genres: Vec<String> = (0..60).map(|number| format!("genre {number}")).collect();
    let songs = format!(
        "track_id,artists,track_name,duration_ms,track_genre\na,{long},{long},1000,pop\n\
         b,X,Y,5,{genre};rock\nc,X,Y,5,{}\n",
        genres.join(";")
    );
    let references = parse(&songs).await.unwrap();
    let key = |id| text_key(&references, id).unwrap();
    assert_eq!(values(&references, "track_name").whole(key("a")), Some("é".repeat(256).as_str()));
    let of_genre = values(&references, "track_genre");
    assert_eq!(of_genre.whole(key("b")), Some("rock"));
    assert_eq!(of_genre.values(key("c")).len(), MAX_MANY);
    let remarks = references.remarks.values().filter(|remark| !remark.is_skipped);
    let lines: Vec<_> = remarks.map(|remark| (remark.lines, &remark.first[..])).collect();
    assert_eq!(lines, [(1, &[2][..]), (10, &[4; 5]), (1, &[3]), (1, &[2])]);
}

#[tokio::test]
async fn a_catalogue_that_does_not_fit_is_refused_at_the_line_where_it_ceases_to() {
    let songs: String = (0..20_000).map(|track| format!("track-{track},Song {track},Artist,pop,5\n")).collect();
    let songs = format!("track_id,track_name,artists,track_genre,duration_ms\n{songs}");
    let users: String = (1..=60_000).map(|user| format!("{user},Peru\n")).collect();
    let users = format!("user_id,user_country\n{users}");
    let plan = plan();
    let within = async |bytes| References::parse_within(bytes, &plan, vec![songs.as_bytes(), users.as_bytes()]).await;
    let bytes = within(usize::MAX).await.unwrap().memory_bytes();
    assert!(within(bytes * 3).await.is_ok());
    let told = within(bytes - 1).await.unwrap_err().to_string();
    assert!(told.contains("of reference/") && told.contains("--max-memory"), "{told}");
    let told = within(bytes / 4).await.unwrap_err().to_string();
    assert!(told.contains("of reference/songs.csv"), "{told}");
}

#[tokio::test]
async fn a_line_without_an_end_is_not_collected() {
    let text = format!("track_id,\"track_name{}", "no end\n".repeat(1 << 20));
    let told = parse(&text).await.unwrap_err().to_string();
    assert!(told.contains("the record at line 1 is longer than 100 lines"), "{told}");
    let head = "track_id,track_name,artists,track_genre,duration_ms\n";
    let error = parse(&format!("{head}a,\"{}", "no end\n".repeat(1 << 20))).await.unwrap_err().to_string();
    assert!(error.contains("the record at line 2 is longer than 100 lines"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_the_reference_is_refused() {
    let error = parse("track_id,track_name\na,b\n").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "reference/songs.csv cannot be used: the header lacks the columns artists, track_genre, duration_ms; \
         the header is \
         \"track_id,track_name\"; it must name track_id, track_name, artists, track_genre, duration_ms"
    );
    assert!(parse("").await.is_err());
}
