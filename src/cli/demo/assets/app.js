// The script of `dwell demo`: sends the forms without a reload, keeps the companion, counts down, hears why a session
// ended, and waits for a server that was killed. The page works without it, except for being signed in under the profile `localhost`.
'use strict';
(() => {
  const KEY = 'dwell-companion';
  const main = () => document.querySelector('main');
  const kind = () => main().dataset.class;
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  // The companion: half of the key under `localhost`. Without storage it lasts as long as this page.
  let spare = null;
  const kept = () => {
    try { return localStorage.getItem(KEY) ?? spare; } catch { return spare; }
  };
  const keep = (companion) => {
    spare = companion;
    try { companion ? localStorage.setItem(KEY, companion) : localStorage.removeItem(KEY); } catch { /* this page only */ }
  };
  const fromFragment = () => {
    const found = new URLSearchParams(location.hash.slice(1)).get('companion');
    if (found !== null) history.replaceState(null, '', location.pathname + location.search);
    if (!/^[!-~]{1,512}$/.test(found ?? '')) return {};
    // An answer to our own form brings one. So does a link that hands a session over, and so could a page elsewhere that
    // has signed its own account in here: then the visitor is asked.
    return document.referrer.startsWith(`${location.origin}/`) ? { given: found } : { offered: found };
  };

  // Talking to the server.
  const ask = (path, { companion = kept(), headers = {}, signal = AbortSignal.timeout(20_000), ...rest } = {}) => fetch(path, {
    credentials: 'same-origin', cache: 'no-store', redirect: 'manual', signal,
    headers: companion ? { ...headers, 'X-Companion': companion } : headers, ...rest,
  });
  const isJson = (answer) => (answer.headers.get('Content-Type') ?? '').includes('json');
  const refusal = async (answer) => {
    const told = isJson(answer) ? await answer.json().catch(() => ({})) : {};
    const error = new Error(told.reason ?? `The server answered with status ${answer.status}.`);
    return Object.assign(error, { status: answer.status, code: told.error ?? '' });
  };
  const fetchPage = async (companion) => {
    const answer = await ask('/', { companion, headers: { Accept: 'text/html' } });
    if (!answer.ok) throw await refusal(answer);
    return new DOMParser().parseFromString(await answer.text(), 'text/html');
  };

  // Showing.
  const say = (text, wrong = false) => {
    const notice = document.getElementById('notice');
    notice.classList.toggle('wrong', wrong);
    notice.textContent = text;
  };
  // What was typed survives a swap, except in the form that has just been sent with success.
  const carryOver = (old, next, spent) => {
    for (const input of old.querySelectorAll('input[id]')) {
      const twin = next.querySelector(`#${CSS.escape(input.id)}`);
      if (!twin || twin.form?.id !== input.form?.id || input.form?.id === spent?.id) continue;
      twin.value = input.value;
      twin.checked = input.checked;
    }
  };
  const swap = (fresh, spent = null) => {
    const old = main();
    const next = document.importNode(fresh.querySelector('main'), true);
    const focused = document.activeElement;
    const hadFocus = old.contains(focused);
    carryOver(old, next, spent);
    old.replaceWith(next);
    document.title = fresh.title;
    prepare();
    if (!hadFocus) return;
    const notice = document.getElementById('notice');
    const twin = focused.id ? document.getElementById(focused.id) : null;
    (twin ?? (notice.textContent ? notice : next)).focus();
  };
  const refresh = async (spent) => swap(await fetchPage(), spent);

  // Time left. The server rounds down and its answer was on the way for a while, so this never claims less than is left.
  const ends = {};
  const setLeft = (name, seconds) => { ends[name] = performance.now() / 1000 + seconds; };
  const words = (seconds) => {
    const parts = [[Math.floor(seconds / 86_400), 'd'], [Math.floor(seconds / 3600) % 24, 'h'], [Math.floor(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
    while (parts.length > 1 && parts[0][0] === 0) parts.shift();
    return parts.map((part) => part.join(' ')).join(' ');
  };
  const tick = () => {
    for (const name of ['idle', 'life']) {
      const shown = document.getElementById(`${name}-left`);
      if (!shown) continue;
      const left = Math.max(0, Math.ceil(ends[name] - performance.now() / 1000));
      shown.textContent = words(left);
      if (left === 0) sync();
    }
  };
  // Another tab may have prolonged or ended the session: ask, in the way that does not itself count as use.
  let syncing = false;
  const sync = async () => {
    if (syncing || busy || waiting || document.hidden || kind() === 'none') return;
    syncing = true;
    try {
      const answer = await ask('/whoami', { headers: { Accept: 'application/json', 'X-Passive': '1' } });
      if (!answer.ok) return;
      const me = await answer.json();
      if (busy) return;
      if (me.class !== kind()) {
        if (me.class === 'none') say('Your session has ended.');
        return await refresh();
      }
      setLeft('idle', me.idle_left_s);
      setLeft('life', me.life_left_s);
    } catch { await outage(); } finally { syncing = false; }
  };

  // Why the session ended, told by a stream as it happens. The stream is no use of the session; without one, `sync` finds
  // out a little later, and does not know why.
  const reasons = {
    signed_out: 'in another tab of this browser', replaced: 'because somebody signed in again in this browser',
    revoked: 'from another device', limit: 'because too many devices were signed in, and this was the oldest',
    idle: 'because nothing was done here for too long', lifetime: 'because nobody stays signed in for longer than this',
    replayed: 'because a cookie of it was used that had been replaced: somebody may have copied it',
    fault: 'because the server could not save the session',
  };
  let stream = null;
  const listen = () => { if (kind() !== 'none') stream ??= follow(new AbortController()); };
  const unfollow = () => { stream?.abort(); stream = null; };
  const follow = (mine) => { hear(mine).finally(() => { if (stream === mine) stream = null; }); return mine; };
  const hear = async (mine) => {
    for (let wait = 500; !mine.signal.aborted; wait = Math.min(wait * 2, 30_000)) {
      const was = kind();
      if (was === 'none') return;
      try {
        const headers = { Accept: 'text/event-stream', 'X-Passive': '1' };
        const answer = await ask('/live', { headers, signal: mine.signal });
        if (answer.ok) {
          const { event, reason } = await lastWord(answer.body);
          // The oldest of too many tabs gives way, and asks now and then instead.
          if (event === 'closed') return;
          if (event === 'ended' && reason !== 'shutdown') return await ended(was, reason, mine);
          wait = 500;
        }
      } catch { if (mine.signal.aborted) return; }
      await sync();
      // While the server is away, `outage` waits for it.
      do { await pause(wait); } while (waiting);
    }
  };
  const lastWord = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const { value, done } = await reader.read();
      if (done) return {};
      const blocks = (text + value).split('\n\n');
      text = blocks.pop();
      for (const block of blocks) {
        const field = (name) => block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        if (field('event')) return { event: field('event'), reason: JSON.parse(field('data') ?? '{}').reason };
      }
    }
  };
  const ended = async (was, reason, mine) => {
    while (busy) await pause(50);
    // The tab that signed in again is about to share its companion.
    if (reason === 'replaced') await pause(500);
    if (mine.signal.aborted) return;
    stream = null;
    if (kind() !== 'none') await refresh().catch(outage);
    if (kind() !== 'none') return;
    const begin = was === 'authenticated' ? 'You were signed out' : 'Your visit has ended';
    say(`${begin} ${reasons[reason] ?? ''}`.trim().concat('.'), true);
  };
  const prepare = () => {
    for (const shown of document.querySelectorAll('[data-seconds]')) setLeft(shown.id.replace('-left', ''), Number(shown.dataset.seconds));
    for (const time of document.querySelectorAll('time[datetime]')) {
      const moment = new Date(time.dateTime);
      time.title = time.textContent;
      if (!Number.isNaN(moment.getTime())) time.textContent = moment.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
    }
    listen();
  };

  // Forms. These two are sent as JSON, because only then the answer has the companion.
  const asJson = {
    '/login': (fields) => ({ user: fields.get('user'), password: fields.get('password'), remember: fields.has('remember') }),
    '/elevate': (fields) => ({ password: fields.get('password') }),
  };
  const done = { '/login': 'You are signed in.', '/logout': 'You are signed out.', '/elevate': 'Thank you. The session has a new key.', '/sessions/revoke': 'Signed out there.' };
  let busy = false;
  const send = async (form, button) => {
    const path = form.getAttribute('action');
    const sent = kept();
    const fields = new URLSearchParams(new FormData(form));
    if (button?.name) fields.set(button.name, button.value);
    const headers = { Accept: 'application/json', 'X-CSRF-Token': fields.get('csrf') };
    const shape = asJson[path];
    if (shape) headers['Content-Type'] = 'application/json';
    const answer = await ask(path, { method: 'POST', headers, body: shape ? JSON.stringify(shape(fields)) : fields });
    // A redirect that is not followed comes back opaque: that is how a form succeeds.
    if (!answer.ok && answer.type !== 'opaqueredirect') throw await refusal(answer);
    const told = answer.ok && isJson(answer) ? await answer.json() : {};
    if (told.companion) keep(told.companion);
    if (told.url) {
      say('');
      return show(told.url, 'A link for another browser', 'Open it there within a minute. It signs in once, and is worth nothing after that.');
    }
    say(done[path] ?? '');
    await refresh(form);
    // Whoever ends a session here needs nobody to tell them why.
    if (path === '/login' || (path in done && kind() === 'none')) { unfollow(); listen(); }
    // Signed out, here or from the list: the companion is worth nothing. Another tab may have a newer one by now.
    if (kind() !== 'authenticated' && kept() === sent) keep(null);
    const card = form.id && document.getElementById(form.id)?.closest('section');
    document.getElementById('heard').textContent = card?.querySelector('[data-heard]')?.textContent ?? '';
  };
  const explain = async (error, form) => {
    if (!error.status) return outage();
    const ended = error.status === 401 && error.code !== 'bad_credentials';
    if (error.code === 'csrf') say('The page was out of date, please try again.', true);
    else say(error.message, true);
    if (ended || error.code === 'csrf' || error.code === 'companion') {
      await refresh().catch(() => {});
    }
    const password = error.code === 'bad_credentials' ? form.querySelector('[type=password]') : null;
    password?.focus();
    password?.select();
  };
  const submitted = async (event) => {
    const form = event.target;
    if (form.method !== 'post') return;
    event.preventDefault();
    if (busy) return;
    busy = true;
    main().setAttribute('aria-busy', 'true');
    try { await send(form, event.submitter); } catch (error) { await explain(error, form); } finally {
      busy = false;
      main().removeAttribute('aria-busy');
    }
  };

  // A bare link cannot carry the companion, so what it leads to is fetched and shown here.
  const followed = async (event) => {
    const link = event.target.closest?.('a[data-companion]');
    if (!link || !kept()) return;
    event.preventDefault();
    try {
      const answer = await ask(link.getAttribute('href'), { headers: { Accept: 'application/json' } });
      if (!answer.ok) throw await refusal(answer);
      show(await answer.text(), link.textContent);
    } catch (error) { error.status ? say(error.message, true) : await outage(); }
  };
  const show = (text, title, hint = '') => {
    const dialog = document.createElement('dialog');
    const body = document.createElement('pre');
    const close = document.createElement('button');
    const heading = Object.assign(document.createElement('h2'), { id: 'dialog-title', textContent: title });
    const note = Object.assign(document.createElement('p'), { id: 'dialog-hint', textContent: hint });
    dialog.setAttribute('aria-labelledby', heading.id);
    if (hint) dialog.setAttribute('aria-describedby', note.id);
    dialog.append(heading);
    try { body.textContent = JSON.stringify(JSON.parse(text), null, 2); } catch { body.textContent = text; }
    body.tabIndex = 0;
    close.textContent = 'Close';
    close.autofocus = true;
    close.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    if (hint) {
      body.className = 'whole';
      dialog.append(note);
    }
    dialog.append(body, close);
    document.body.append(dialog);
    dialog.showModal();
  };

  // A server that does not answer was stopped or killed.
  const answers = () => ask('/healthz').then(() => true, () => false);
  let waiting = false;
  const outage = async () => {
    if (waiting) return;
    waiting = true;
    const was = kind();
    say('The server does not answer. Start it again: this page is waiting for it.', true);
    for (let wait = 700; !await answers(); wait = Math.min(wait * 1.05, 10_000)) await pause(wait);
    waiting = false;
    try {
      await refresh();
      const still = was === 'authenticated' && kind() === was;
      say(still ? 'The server is back, and you are still signed in.' : 'The server is back.');
    } catch (error) { say(error.message, true); }
  };

  // Start. A companion from a link counts only if it works: a made-up one must not replace the right one.
  const { given, offered } = fromFragment();
  const restore = async (candidates) => {
    for (const companion of candidates) {
      const fresh = await fetchPage(companion);
      if (fresh.querySelector('main')?.dataset.class !== 'authenticated') continue;
      keep(companion);
      return swap(fresh);
    }
  };
  const offer = async (companion) => {
    const name = (await fetchPage(companion)).querySelector('#principal')?.textContent;
    if (!name) return;
    say(`This link signs you in as ${name}. `);
    const go = Object.assign(document.createElement('button'), { id: 'accept', textContent: `Continue as ${name}` });
    go.addEventListener('click', async () => {
      keep(companion);
      say('');
      try { await refresh(); } catch (error) { say(error.message, true); }
    });
    document.getElementById('notice').append(go);
  };
  const start = async () => {
    prepare();
    const shown = () => document.documentElement.classList.remove('restoring');
    try {
      if (kind() !== 'authenticated' || given) await restore([...new Set([given, kept()])].filter(Boolean));
      shown();
      if (offered && kind() !== 'authenticated') await offer(offered);
    } catch (error) {
      shown();
      error.status ? say(error.message, true) : await outage();
    }
    setInterval(tick, calm ? 30_000 : 1000);
    setInterval(sync, 5_000);
  };
  document.documentElement.classList.add('scripted');
  if (given || kept()) document.documentElement.classList.add('restoring');
  document.addEventListener('DOMContentLoaded', start);
  document.addEventListener('submit', submitted);
  document.addEventListener('click', followed);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) { sync(); listen(); } });
  addEventListener('storage', (event) => { if (event.key === KEY && !busy) refresh().catch(() => {}); });
  addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
})();
