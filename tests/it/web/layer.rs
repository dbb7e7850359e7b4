//! What the axum layer does around a handler.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Form;
use axum::http::{Request as HttpRequest, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use dwell::axum::{Connection, Fresh, SessionLayer, SignedIn};
use dwell::web::Exchange;
use dwell::{ManualClock, Session, SignIn};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

pub(super) const COUNT: Field<u32> = Field::new("count");

pub(super) async fn count(session: Session) -> dwell::Result<String> {
    session.update(COUNT, |n| {
        *n += 1;
        n.to_string()
    })
}

pub(super) fn http(method: &str, path: &str, lines: Lines<'_>) -> HttpRequest<Body> {
    http_with(method, path, lines, Body::empty())
}

fn http_with(method: &str, path: &str, lines: Lines<'_>, body: Body) -> HttpRequest<Body> {
    let mut request = HttpRequest::builder().method(method).uri(path).header("Host", HOST);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

pub(super) async fn send(app: &Router, request: HttpRequest<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

pub(super) async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) fn cookies(response: &Response<Body>) -> Vec<String> {
    let values = response.headers().get_all(header::SET_COOKIE).iter();
    values.map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
}

fn line<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_counter_counts_for_each_visitor() {
    let app = Router::new().route("/", get(count)).layer(SessionLayer::development(sessions()));
    let first = send(&app, http("GET", "/", &[])).await;
    let cookie = cookies(&first).remove(0);
    assert_eq!(line(&first, "cache-control"), Some("no-store"));
    assert_eq!(line(&first, "vary"), Some("Cookie"));
    assert_eq!(text(first).await, "1");
    let second = send(&app, http("GET", "/", &[("Cookie", &cookie)])).await;
    assert!(cookies(&second).is_empty());
    assert_eq!(text(second).await, "2");
    assert_eq!(text(send(&app, http("GET", "/", &[])).await).await, "1");
}

#[tokio::test]
async fn an_answer_waits_for_what_a_signed_in_request_changed() {
    let sessions = sessions();
    let site = Site::development(sessions.clone());
    let cookie = signed_in(&site, "ada");
    let app = Router::new().route("/", get(count)).layer(SessionLayer::new(site));
    for _ in 0..20 {
        let before = sessions.stats().commits;
        assert_eq!(send(&app, http("GET", "/", &[("Cookie", &cookie)])).await.status(), 200);
        assert!(sessions.stats().commits > before);
        assert_eq!(sessions.stats().dirty_bytes, 0);
    }
}

#[tokio::test]
async fn a_session_that_ends_meanwhile_answers_401_and_sets_no_cookie() {
    let sessions = sessions();
    let site = Site::development(sessions.clone());
    let ends = |then_write: bool| {
        let sessions = sessions.clone();
        get(move |session: Session| async move {
            if !then_write {
                session.set(VISITS, &1)?;
            }
            sessions.revoke_all("ada")?.await?;
            if then_write { session.set(VISITS, &1) } else { Ok(()) }
        })
    };
    let router = Router::new().route("/write", ends(true)).route("/lose", ends(false));
    let app = router.layer(SessionLayer::new(site.clone()));
    for path in ["/write", "/lose"] {
        let cookie = signed_in(&site, "ada");
        let response = send(&app, http("GET", path, &[("Cookie", &cookie)])).await;
        assert_eq!(response.status(), 401, "{path}");
        assert!(cookies(&response).is_empty());
        assert!(text(response).await.contains("session_ended"));
    }
}

#[tokio::test]
async fn the_first_of_two_steps_opens_no_route_that_asks_for_a_sign_in() {
    let site = Site::development(sessions());
    let app = Router::new()
        .route("/who", get(|user: SignedIn| async move { user.principal().to_owned() }))
        .route("/maybe", get(|user: Option<SignedIn>| async move { user.is_some().to_string() }))
        .route("/fresh", get(|Fresh(user): Fresh<300>| async move { user.principal().to_owned() }))
        .route("/hand-off", get(|exchange: Exchange| async move { exchange.hand_off() }))
        .layer(SessionLayer::new(site.clone()));
    let exchange = open(&site, "GET", &[]);
    exchange.session_for_sign_in().sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
    let half = cookie_of(&exchange).unwrap();
    for (path, status) in [("/who", 401), ("/fresh", 401), ("/hand-off", 403), ("/maybe", 200)] {
        let response = send(&app, http("GET", path, &[("Cookie", &half)])).await;
        assert_eq!(response.status(), status, "{path}");
        assert_ne!(text(response).await, "true");
    }
    // The second step: another token, and the first is worth nothing.
    let second = open(&site, "GET", &[("Cookie", &half)]);
    let session = second.session().unwrap();
    let who = session.pending_principal().unwrap().unwrap();
    session.sign_in(&*who).unwrap().blocking_wait().unwrap();
    let whole = cookie_of(&second).unwrap();
    assert_ne!(whole, half);
    for (cookie, status) in [(&whole, 200), (&half, 401)] {
        assert_eq!(send(&app, http("GET", "/who", &[("Cookie", cookie)])).await.status(), status);
    }
}

#[tokio::test]
async fn what_was_written_stands_whatever_the_status() {
    async fn fail(session: Session) -> dwell::Result<StatusCode> {
        session.set(VISITS, &5)?;
        Ok(StatusCode::INTERNAL_SERVER_ERROR)
    }
    let site = Site::development(sessions());
    let app = Router::new().route("/", get(fail)).layer(SessionLayer::new(site.clone()));
    let response = send(&app, http("GET", "/", &[])).await;
    assert_eq!(response.status(), 500);
    let cookie = cookies(&response).remove(0);
    assert_eq!(open(&site, "GET", &[("Cookie", &cookie)]).session().unwrap().get(VISITS).unwrap(), Some(5));
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_the_log_gets_the_cause() {
    let sessions = sessions();
    let app = Router::new().route("/", get(count)).layer(SessionLayer::development(sessions.clone()));
    sessions.close().unwrap();
    let response = send(&app, http("GET", "/", &[])).await;
    assert_eq!(response.status(), 503);
    assert_eq!(line(&response, "retry-after"), Some("10"));
    assert!(response.extensions().get::<Arc<dwell::Error>>().is_some());
    assert!(cookies(&response).is_empty());
}

#[cfg(feature = "sim")]
#[tokio::test]
async fn a_new_token_is_handed_out_even_if_a_later_save_fails() {
    let disk = Arc::new(dwell::sim::Directory::new(1));
    let site = Site::development(disk.open(&Options::new().manual_workers()).unwrap());
    let sign_in = move |session: Session| {
        let disk = Arc::clone(&disk);
        async move {
            session.sign_in("ada")?.await?;
            session.set(VISITS, &1)?;
            disk.fail_at(disk.operations() + 1, u64::MAX, std::io::ErrorKind::Other);
            Ok::<_, dwell::Error>("in")
        }
    };
    let app = Router::new().route("/", get(sign_in)).layer(SessionLayer::new(site.clone()));
    let response = send(&app, http("GET", "/", &[])).await;
    assert_eq!(response.status(), 503);
    // The sign-in was on disk before, and nothing else opens its session.
    let cookie = cookies(&response).remove(0);
    assert!(open(&site, "GET", &[("Cookie", &cookie)]).session().is_some());
}

#[tokio::test]
async fn a_forms_token_is_read_and_the_form_reaches_the_handler() {
    async fn post_it(Form(fields): Form<Vec<(String, String)>>) -> String {
        fields.into_iter().map(|(_, value)| value).next_back().unwrap_or_default()
    }
    let site = Site::development(sessions());
    let layer = SessionLayer::new(site.clone()).form_bytes_max(4096);
    let app = Router::new().route("/", post(post_it)).layer(layer);
    let cookie = signed_in(&site, "ada");
    let token = open(&site, "GET", &[("Cookie", &cookie)]).csrf_token().unwrap();
    let form = ("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8");
    let lines = [("Cookie", &*cookie), ("Origin", "http://localhost:3000"), form];
    let post = async |body: String| {
        let response = send(&app, http_with("POST", "/", &lines, Body::from(body))).await;
        (response.status().as_u16(), text(response).await)
    };
    assert_eq!(post(format!("csrf={token}&name=caf%C3%A9")).await, (200, "café".to_owned()));
    assert_eq!(post("name=x".to_owned()).await.0, 403);
    assert_eq!(post(format!("csrf={token}&csrf={token}")).await.0, 403);
    assert_eq!(post(format!("csrf={token}&name={}", "x".repeat(5000))).await.0, 413);
    let json = [("Cookie", &*cookie), ("Origin", "http://localhost:3000"), ("Content-Type", "text/plain")];
    let body = Body::from(format!("csrf={token}"));
    assert_eq!(send(&app, http_with("POST", "/", &json, body)).await.status(), 403, "only a form has fields");
}

#[tokio::test]
async fn the_extractors_say_what_is_missing() {
    let clock = ManualClock::new();
    let site = Site::development(dwell::Options::new().clock(clock.clone()).in_memory().unwrap());
    let router = Router::new()
        .route("/in", get(|user: SignedIn| async move { user.principal().to_owned() }))
        .route("/fresh", get(|Fresh(user): Fresh<60>| async move { user.principal().to_owned() }))
        .route(
            "/maybe",
            get(|user: Option<SignedIn>, session: Option<Session>| async move {
                format!("{:?} {}", user.map(|user| user.principal().to_owned()), session.is_some())
            }),
        );
    let app = router.layer(SessionLayer::new(site.clone()).sign_in_page("/welcome"));
    let ask = async |path: &str, lines: Lines<'_>| send(&app, http("GET", path, lines)).await;
    let refused = ask("/in", &[]).await;
    assert_eq!(refused.status(), 401);
    assert!(text(refused).await.contains("sign_in_required"));
    let sent = ask("/in", &[("Accept", "text/html,*/*")]).await;
    assert_eq!((sent.status().as_u16(), line(&sent, "location")), (303, Some("/welcome")));
    assert_eq!(text(ask("/maybe", &[]).await).await, "None false");

    let cookie = signed_in(&site, "ada");
    let lines = [("Cookie", &*cookie)];
    assert_eq!(text(ask("/in", &lines).await).await, "ada");
    assert_eq!(text(ask("/fresh", &lines).await).await, "ada");
    assert_eq!(text(ask("/maybe", &lines).await).await, "Some(\"ada\") true");
    clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(text(ask("/in", &lines).await).await, "ada");
    let stale = ask("/fresh", &lines).await;
    assert_eq!(stale.status(), 401);
    assert!(text(stale).await.contains("reauthentication_required"));
}

#[tokio::test]
async fn caches_are_kept_away_from_what_depends_on_the_session() {
    let own = |value: &'static str| move || async move { ([(header::CACHE_CONTROL, value)], "x") };
    let asks = |value: &'static str| {
        move |exchange: Exchange| async move {
            let _ = exchange.session();
            ([(header::CACHE_CONTROL, value)], "x")
        }
    };
    let sets = |session: Session| async move {
        session.set(VISITS, &1)?;
        Ok::<_, dwell::Error>(([(header::CACHE_CONTROL, "private, max-age=60")], "x").into_response())
    };
    let router = Router::new()
        .route("/static", get(own("public, max-age=60")))
        .route("/public", get(asks("public, max-age=60")))
        .route("/private", get(asks("private, max-age=60")))
        .route("/sets", get(sets));
    let app = router.layer(SessionLayer::development(sessions()));
    let control = async |path| {
        let response = send(&app, http("GET", path, &[])).await;
        (line(&response, "cache-control").unwrap().to_owned(), line(&response, "vary").map(str::to_owned))
    };
    assert_eq!(control("/static").await, ("public, max-age=60".to_owned(), None));
    let cookie = Some("Cookie".to_owned());
    assert_eq!(control("/public").await, ("no-store".to_owned(), cookie.clone()));
    assert_eq!(control("/private").await, ("private, max-age=60".to_owned(), cookie.clone()));
    assert_eq!(control("/sets").await, ("no-store".to_owned(), cookie));
}

#[tokio::test]
async fn the_connection_tells_port_and_address() {
    let site = Site::development(sessions());
    let sign_in = |session: Session| async move { session.sign_in("ada")?.await.map(drop) };
    let router = Router::new().route("/", get(sign_in)).layer(SessionLayer::new(site.clone()));
    let on = |local: &str| {
        let connection = Connection::new(local.parse().unwrap(), "192.0.2.7:9".parse().unwrap());
        router.clone().layer(Extension(connection))
    };
    assert_eq!(send(&on("127.0.0.1:3001"), http("GET", "/", &[])).await.status(), 421);
    assert_eq!(send(&on("127.0.0.1:3000"), http("GET", "/", &[])).await.status(), 200);
    assert_eq!(site.sessions().of("ada").unwrap()[0].address, "192.0.2.7");
}

#[tokio::test]
async fn a_cold_session_is_found() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sessions");
    let site = Site::development(Sessions::open(&path).unwrap());
    let cookie = signed_in(&site, "ada");
    site.sessions().clone().close().unwrap();
    drop(site);
    let layer = SessionLayer::development(Sessions::open(&path).unwrap());
    let app = Router::new().route("/", get(|user: SignedIn| async move { user.principal().to_owned() })).layer(layer);
    assert_eq!(text(send(&app, http("GET", "/", &[("Cookie", &cookie)])).await).await, "ada");
}

#[tokio::test]
async fn an_answer_that_depends_on_a_missing_companion_is_kept_by_no_cache() {
    let site = Site::localhost(sessions());
    let greet = |exchange: Exchange| async move {
        let name = exchange.session_or_new().map_or("somebody who forgot a secret", |_| "a stranger");
        ([(header::CACHE_CONTROL, "public, max-age=60")], name)
    };
    let app = Router::new().route("/", get(greet)).layer(SessionLayer::new(site.clone()));
    let cookie = signed_in(&site, "ada");
    let response = send(&app, http("GET", "/", &[("Cookie", &cookie)])).await;
    assert_eq!(
        (line(&response, "cache-control"), line(&response, "vary")),
        (Some("no-store"), Some("Cookie, X-Companion"))
    );
    assert_eq!(text(response).await, "somebody who forgot a secret");
}
