//! `dwell demo` as browsers, scripts and attackers meet it: the real program in a process of its own, over raw HTTP.
//!
//! `http` is the client, `answer` what must hold of every answer, `site` the process, `browser` a visitor, `stream`
//! an answer that goes on. The others
//! hold the program against its contract, a theme each. Nothing here knows how it is built.

mod answer;
mod browser;
mod http;
mod site;
mod stream;

mod companion;
mod cookies;
mod csrf;
mod data;
mod devices;
mod expiry;
mod flood;
mod host;
mod leave;
mod live;
mod load;
mod methods;
mod origin;
mod page;
mod races;
mod raw;
mod restart;
mod secrets;
mod sign_in;
mod soft;
mod tracking;
mod transport;
mod whoami;
