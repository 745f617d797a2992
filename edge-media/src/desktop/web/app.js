// The human agent's page. It shows what the edge says, in the order of its sequence numbers,
// and reconnects whenever it may have missed something: the first message after connecting
// is the whole truth. It decides nothing. Text from outside only ever becomes text nodes.
'use strict';

(() => {
  const KEY = 'warmbridge.token';
  const BACKOFF_MS = [250, 500, 1000, 2000, 5000];
  const SILENCE_MAX_MS = 12000; // the edge gives a sign of life every five seconds
  const KEEP_ENDED_MS = 10 * 60 * 1000;
  const $ = (id) => document.getElementById(id);

  let token = fragmentToken() || sessionStorage.getItem(KEY) || '';
  let socket = null;
  let attempts = 0;
  let retry = 0;
  let heardAt = 0;
  let sequence = 0;
  let offers = [];
  let ended = null;
  let shownTranscript = null;
  let lead = false; // the next rendering takes the focus to the headline
  let waiting = { total: 0, callers: [], at: 0 };
  const acknowledged = new Set();

  /** A token in the fragment never reaches a server's log; it does not stay in the bar. */
  function fragmentToken() {
    const found = /^#token=(.+)$/.exec(location.hash);
    if (!found) return '';
    history.replaceState(null, '', location.pathname);
    try {
      return decodeURIComponent(found[1]);
    } catch {
      return '';
    }
  }

  // --- the link -------------------------------------------------------------------------

  function connect() {
    if (!token) return signIn('');
    if (socket) return undefined;
    link('Connecting', false);
    const encoded = btoa(token).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const opened = new WebSocket(`${scheme}//${location.host}/v1/desktop/ws`, [
      'warmbridge.desktop.v1',
      `bearer.${encoded}`,
    ]);
    socket = opened;
    heardAt = performance.now();
    opened.onmessage = (event) => {
      if (socket === opened) hear(event.data);
    };
    opened.onclose = () => {
      if (socket === opened) again();
    };
  }

  /** A link that has gone silent is not waited for: its close could take minutes. */
  function watch() {
    if (!socket || performance.now() - heardAt < SILENCE_MAX_MS) return;
    socket.close();
    again();
  }

  async function again() {
    socket = null;
    link('Reconnecting', false);
    const wait = BACKOFF_MS[Math.min(attempts, BACKOFF_MS.length - 1)];
    attempts += 1;
    const refused = await isRefused();
    if (socket) return undefined; // the network came back meanwhile
    if (refused) {
      token = '';
      sessionStorage.removeItem(KEY);
      return signIn('This token is not known here.');
    }
    clearTimeout(retry);
    retry = setTimeout(connect, wait * (0.75 + Math.random() / 2));
    return undefined;
  }

  /** A browser does not say why a socket was refused; a route for agents does. */
  async function isRefused() {
    try {
      const answer = await fetch('/v1/queues', {
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(2000),
      });
      return answer.status === 401;
    } catch {
      return false;
    }
  }

  function say(message) {
    if (!socket || socket.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(message));
    return true;
  }

  function hear(text) {
    heardAt = performance.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message.type === 'beat') return;
    if (message.type === 'refused') return refused(message);
    if (message.type === 'waiting') {
      waiting = { total: message.total, callers: message.callers, at: heardAt };
      return showWaiting();
    }
    if (message.type !== 'state' && message.seq !== sequence + 1) {
      // Something was missed. The next connection begins with the truth.
      if (socket) socket.close();
      return;
    }
    sequence = message.seq;
    apply(message);
    render();
    paint(message.type, heardAt);
    acknowledge();
  }

  /** What was asked for is not possible (any more): the button is offered again. */
  function refused(message) {
    const offer = current();
    if (offer) offer.asked = '';
    announce(`Not possible: ${message.reason}`);
    render();
  }

  /** How long a message took to be on the screen: a measure of its name, from its arrival
      to the frame after the one that shows it. */
  function paint(name, start) {
    afterPaint(() => {
      performance.clearMeasures(name);
      performance.measure(name, { start, end: performance.now() });
    });
  }

  const afterPaint = (then) => requestAnimationFrame(() => requestAnimationFrame(then));

  // --- what holds -----------------------------------------------------------------------

  function received(offer) {
    return { ...offer, at: performance.now(), bridgedAt: null, asked: '' };
  }

  function apply(message) {
    const offer = offers.find((known) => known.transfer === message.transfer);
    switch (message.type) {
      case 'state':
        attempts = 0;
        sessionStorage.setItem(KEY, token);
        $('who').textContent = message.agent.name;
        link('Connected', true);
        offers = message.offers.map(received);
        acknowledged.clear();
        break;
      case 'incoming':
        offers = offers.filter((known) => known.transfer !== message.offer.transfer);
        offers.push(received(message.offer));
        ended = null;
        announce('Incoming transfer');
        lead = true;
        break;
      case 'card':
        if (offer) offer.payload = message.payload;
        if (offer) announce(`Incoming transfer. ${headline(message.payload)}`);
        break;
      case 'caption':
        if (offer) offer.caption = message.text;
        break;
      case 'accepted':
        if (offer) Object.assign(offer, { stage: 'accepted', frozen: message.revision, asked: '' });
        break;
      case 'bridged':
        if (offer) Object.assign(offer, { stage: 'bridged', bridgedAt: performance.now(), asked: '' });
        announce('Connected to the caller');
        break;
      case 'ended':
        offers = offers.filter((known) => known.transfer !== message.transfer);
        finish(offer, message.reason);
        break;
      default:
        break;
    }
  }

  /** After a call the card stays for the notes; an offer that is over leaves a line. */
  function finish(offer, reason) {
    const back = offer && offer.asked === 'hand_back';
    const text = back ? 'The assistant has the caller again.' : REASONS[reason] || 'The call is over.';
    announce(text);
    ended = { offer: offer && offer.stage === 'bridged' ? offer : null, text };
    const mine = ended;
    setTimeout(() => {
      if (ended === mine) {
        ended = null;
        render();
      }
    }, mine.offer ? KEEP_ENDED_MS : 8000);
  }

  /** Two animation frames after a change of the page, the change is on the screen. A page
      that nobody can see paints nothing, and acknowledges nothing. */
  function acknowledge() {
    const offer = current();
    if (!offer || !offer.payload) return;
    const { transfer, payload, stage } = offer;
    const step = `${transfer} ${payload.revision} ${stage === 'incoming' ? 'offered' : 'accepted'}`;
    if (acknowledged.has(step)) return;
    const asked = socket;
    afterPaint(() => {
      const shown = current();
      if (asked !== socket || acknowledged.has(step)) return;
      if (!shown || shown.transfer !== transfer || !shown.payload || shown.payload.revision !== payload.revision) return;
      acknowledged.add(step);
      say({ type: 'ack', transfer, revision: payload.revision });
    });
  }

  const current = () => offers[offers.length - 1] || null;

  // --- the page -------------------------------------------------------------------------

  function render() {
    const offer = current() || (ended && ended.offer);
    const over = Boolean(offer) && !current();
    $('sign-in').hidden = true;
    $('queue').hidden = false;
    $('idle').hidden = Boolean(offer);
    $('offer').hidden = !offer;
    $('actions').hidden = !offer;
    $('idle-title').textContent = ended && !offer ? ended.text : 'Ready';
    document.title = title(offer, over);
    const stageNow = offer && !over ? offer.stage : '';
    if (stageNow !== 'incoming' && $('why').open) $('why').close();
    if (stageNow !== 'bridged' && $('sure').open) $('sure').close();
    $('about-call').hidden = !offer || !offer.payload;
    if (!offer) return focusOn('idle-title');

    const stage = over ? 'ended' : offer.stage;
    $('strip').className = `strip ${stage}`;
    setText($('stage'), over ? ended.text : ASKED[`${stage} ${offer.asked}`] || STAGES[stage]);
    tick();
    $('accept').hidden = stage !== 'incoming';
    $('decline').hidden = stage !== 'incoming';
    $('hand-back').hidden = stage !== 'bridged';
    $('done').hidden = !over;
    $('accept').disabled = offer.asked !== '';
    $('decline').disabled = offer.asked === 'decline';
    $('hand-back').disabled = offer.asked !== '';
    card(offer);
    focusOn('headline');
    lead = false;
    return undefined;
  }

  /** Takes the focus along when what had it is gone, or a call arrives; never out of a field
      in which somebody writes, nor out of a dialog. */
  function focusOn(id) {
    const at = document.activeElement;
    const lost = !at || at === document.body || at.closest('[hidden]') || at.disabled;
    if (lost || (lead && at.tagName !== 'INPUT' && !at.closest('dialog'))) $(id).focus({ preventScroll: true });
  }

  function showWaiting() {
    const { total, callers } = waiting;
    setText($('queue-title'), total === 0 ? 'Nobody is waiting' : total === 1 ? '1 caller is waiting' : `${total} callers are waiting`);
    fill($('waiting'), callers.map((caller) => {
      const line = el('li', caller.offered === 'you' ? 'mine' : '');
      line.append(el('b', '', caller.queue), el('time'), el('span', '', WHY[caller.category] || words(caller.category)), el('span', 'to', OFFERED[caller.offered]));
      return line;
    }));
    tickWaiting();
  }

  function tickWaiting() {
    const since = performance.now() - waiting.at;
    const clocks = $('waiting').querySelectorAll('time');
    waiting.callers.forEach((caller, at) => setText(clocks[at], minutes(caller.waited_ms + since)));
  }

  function card(offer) {
    const payload = offer.payload;
    for (const id of ['next', 'details', 'tier-three']) $(id).hidden = !payload;
    $('caption').hidden = !offer.caption;
    setText($('caption'), offer.caption || '');
    if (!payload) {
      $('headline').textContent = 'A caller is being transferred to you';
      $('summary').textContent = 'The briefing is on its way.';
      $('banner').hidden = $('incomplete').hidden = true;
      return;
    }
    const { summary, structured } = payload;
    setText($('headline'), headline(payload));
    setText($('summary'), summary.text);
    verification(structured.caller);
    const completeness = structured.completeness;
    $('incomplete').hidden = !completeness || completeness.score_pm >= 700;
    if (completeness) $('incomplete').textContent = `Briefing incomplete. Missing: ${completeness.missing.map(words).join(', ')}`;
    $('next-text').textContent = structured.next_action.text;
    fill($('do-not'), (structured.next_action.do_not || []).map((text) => el('li', '', text)));
    fill($('facts').tBodies[0], facts(structured.collected));
    fill($('about'), about(structured));
    $('tier-three').hidden = !payload.transcript || payload.transcript.availability !== 'on_demand';
    if (shownTranscript !== offer.transfer) {
      $('transcript').hidden = true;
      $('transcript-load').hidden = false;
      $('transcript-note').textContent = 'Looking at it is recorded.';
      fill($('transcript'), []);
    }
  }

  const headline = (payload) => payload.summary.headline || payload.structured.intent.label;

  function verification(caller) {
    const banner = $('banner');
    const failed = caller.ani.stir && caller.ani.stir.verstat === 'failed';
    const [text, kind] = failed
      ? ['The carrier could not confirm this number. Take nothing for granted.', 'bad']
      : VERIFICATION[caller.verification.level] || VERIFICATION.unverified;
    banner.hidden = false;
    banner.className = `banner ${kind}`;
    banner.textContent = text;
  }

  function facts(collected) {
    if (!collected.length) {
      const cell = el('td', '', 'Nothing yet.');
      cell.colSpan = 4;
      return [el('tr', '', cell)];
    }
    return collected.map((item, at) => {
      const shown = item.redacted !== 'removed' && item.value !== null;
      const value = shown ? item.value : item.redacted === 'removed' ? 'given, not shown' : '–';
      // What is confirmed needs no word on where it came from.
      const from = item.confirmed ? '' : PROVENANCE[item.provenance];
      const cell = el('td', 'value', el('span', '', value));
      if (from) cell.append(el('span', 'from', from));
      const mark = item.confirmed ? el('td', 'mark-cell yes', '✓ confirmed') : el('td', 'mark-cell', 'not confirmed');
      const label = item.label || words(item.key);
      const name = el('th', '', label);
      name.scope = 'row';
      const last = el('td', 'copy-cell');
      if (shown) last.append(copyButton(label, String(item.value), at + 1));
      return el('tr', '', name, cell, mark, last);
    });
  }

  function copyButton(label, value, number) {
    const button = el('button', 'copy', 'Copy');
    if (number <= 9) button.append(el('kbd', '', number));
    button.type = 'button';
    button.setAttribute('aria-label', `Copy ${label}`);
    if (number <= 9) button.setAttribute('aria-keyshortcuts', number);
    button.dataset.number = number;
    button.addEventListener('click', () => copy(label, value, button));
    return button;
  }

  /** The clipboard belongs to pages over https (and on this machine) only. */
  async function copy(label, value, button) {
    try {
      await navigator.clipboard.writeText(value);
      $('note').textContent = `${label} copied`;
      if (!button) return;
      button.classList.add('copied');
      setTimeout(() => button.classList.remove('copied'), 1500);
    } catch {
      announce('The browser does not allow to copy here.');
    }
  }

  function copyAll() {
    const offer = current() || (ended && ended.offer);
    if (!offer || !offer.payload) return;
    const lines = offer.payload.structured.collected
      .filter((item) => item.redacted !== 'removed' && item.value !== null)
      .map((item) => `${item.label || words(item.key)}: ${item.value}`);
    if (lines.length) copy('Table', lines.join('\n'));
  }

  function about(structured) {
    const { caller, intent, trigger } = structured;
    const rows = [
      ['Caller', number(caller)],
      ['Why a person', WHY[trigger.code] || words(trigger.code), trigger.explanation],
      ['Record', MATCH[caller.match.status]],
      ['Mood', MOODS[intent.sentiment]],
      ['Already done', (structured.actions_taken || []).map((done) => `${words(done.tool)}: ${OUTCOMES[done.outcome] || done.outcome}`).join(' · ')],
      ['Still open', (structured.unresolved || []).join(' · ')],
    ];
    const pop = structured.crm && structured.crm.screen_pop;
    const out = [];
    for (const [name, value, small] of rows) {
      if (!value) continue;
      const said = el('dd', '', value);
      if (small) said.append(el('span', 'from', small));
      out.push(el('dt', '', name), said);
    }
    if (pop && /^https:\/\//.test(pop.url || '')) {
      const anchor = el('a', '', `Open ${pop.object}`);
      Object.assign(anchor, { id: 'record', href: pop.url, target: '_blank', rel: 'noopener noreferrer' });
      anchor.setAttribute('aria-keyshortcuts', 'O');
      out.push(el('dt', '', 'In the CRM'), el('dd', '', anchor));
    }
    return out;
  }

  /** Who has not been verified is shown by the last four digits only. */
  function number(caller) {
    const { e164, presentation } = caller.ani;
    if (!e164) return presentation === 'restricted' ? 'number withheld' : 'number unknown';
    const proven = ['partial_kba', 'verified'].includes(caller.verification.level);
    return proven ? e164 : `number ending in ${e164.slice(-4)}`;
  }

  async function showTranscript() {
    const offer = current() || (ended && ended.offer);
    const note = $('transcript-note');
    if (!offer || $('tier-three').hidden || $('transcript-load').hidden) return;
    note.textContent = 'Fetching…';
    try {
      const path = `/v1/transcripts/${encodeURIComponent(offer.transfer)}`;
      const answer = await fetch(path, { headers: { authorization: `Bearer ${token}` } });
      if (!answer.ok) throw new Error(String(answer.status));
      const { segments, partial } = await answer.json();
      shownTranscript = offer.transfer;
      fill($('transcript'), segments.map(turn));
      $('transcript').hidden = false;
      $('transcript-load').hidden = true;
      note.textContent = partial ? 'Older turns are not included.' : 'Transcript';
      $('transcript').focus();
    } catch {
      note.textContent = 'The transcript is not available now.';
    }
  }

  function turn(segment) {
    const line = el('li', segment.speaker === 'caller' ? 'caller' : '');
    line.append(el('time', '', minutes(segment.at_ms)), el('b', '', SPEAKERS[segment.speaker] || ''), el('span', '', segment.text));
    return line;
  }

  function tick() {
    const offer = current();
    if (!offer) {
      $('clock').textContent = '';
      return;
    }
    const since = offer.bridgedAt === null ? offer.waited_ms + performance.now() - offer.at : performance.now() - offer.bridgedAt;
    const restored = offer.stage === 'bridged' && offer.bridgedAt === null;
    $('clock').textContent = restored ? '' : `${offer.stage === 'bridged' ? '' : 'waiting '}${minutes(since)}`;
  }

  // --- asking ---------------------------------------------------------------------------

  function ask(type, stage, more) {
    const offer = current();
    if (!offer || offer.stage !== stage || offer.asked === type) return;
    if (!say({ type, transfer: offer.transfer, ...more })) return announce('Not connected. Use the keys of your phone.');
    offer.asked = type;
    render();
    // A yes on the screen waits for the phone to be answered. Whatever becomes of the others
    // comes as a message; without one, the button is offered again.
    if (type !== 'accept') {
      setTimeout(() => {
        if (offer.asked === type) offer.asked = '';
        render();
      }, 3000);
    }
    return undefined;
  }

  function open(dialog, stage) {
    const offer = current();
    if (dialog.open || (stage && (!offer || offer.stage !== stage))) return;
    dialog.showModal();
  }

  function decline(reason) {
    $('why').close();
    ask('decline', 'incoming', { reason });
  }

  function done() {
    if (current() || !ended) return;
    ended = null;
    render();
  }

  function signIn(why) {
    if (socket) socket.onclose = null;
    for (const id of ['idle', 'offer', 'actions', 'about-call', 'queue']) $(id).hidden = true;
    for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
    $('sign-in').hidden = false;
    if (why) $('sign-in-why').textContent = why;
    link('Signed out', false);
    $('token').focus();
  }

  function link(text, up) {
    setText($('link'), text);
    $('link').classList.toggle('up', up);
  }

  function announce(text) {
    $('announce').textContent = text;
  }

  function title(offer, over) {
    if (!offer || over) return 'Warmbridge';
    return offer.stage === 'incoming' ? '● Incoming – Warmbridge' : 'On a call – Warmbridge';
  }

  // --- small things ---------------------------------------------------------------------

  function el(tag, name, ...children) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children.map((child) => (typeof child === 'number' ? String(child) : child)));
    return element;
  }

  const fill = (element, children) => element.replaceChildren(...children);

  /** Live regions speak when their text is set, even to the same text. */
  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const words = (name) => name.replace(/[_.]/g, ' ').replace(/^./, (letter) => letter.toUpperCase());

  function minutes(milliseconds) {
    const seconds = Math.max(0, Math.floor(milliseconds / 1000));
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  }

  const ASKED = {
    'incoming accept': 'Accepted. Answer your phone',
    'incoming decline': 'Declining',
    'bridged hand_back': 'Handing back',
  };
  const OFFERED = { you: 'ringing at your phone', other: 'ringing at a colleague', nobody: 'looking for somebody' };
  const STAGES = { incoming: 'Incoming transfer', accepted: 'Accepted, connecting', bridged: 'Connected' };
  const REASONS = {
    caller_left: 'The caller hung up.',
    no_answer: 'The call went to the next person.',
    declined: 'Declined.',
    taken: 'Somebody else took the call.',
    ended: 'The call is over.',
  };
  const VERIFICATION = {
    unverified: ['Not verified. Confirm one detail before you share anything.', ''],
    ani_match_only: ['Not verified: only the number matches. Confirm one detail before you share anything.', ''],
    partial_kba: ['Identity partly confirmed by the assistant.', 'good'],
    verified: ['Identity verified.', 'good'],
  };
  const WHY = {
    regulatory: 'A rule requires a person',
    safety: 'Safety',
    caller_request: 'Asked for a person',
    tool_failure: 'A system does not work',
    routing_rule: 'Such calls go to a person',
    topic: 'This topic goes to a person',
    broken_promise: 'Was promised a person',
    loop: 'Went round in circles',
    low_confidence: 'The assistant is not sure',
    elapsed_time: 'It has taken too long',
  };
  const MOODS = { negative: 'Unhappy', very_negative: 'Very unhappy', positive: 'Friendly', mixed: 'Mixed' };
  const OUTCOMES = { ok: 'done', failed: 'did not work', unknown: 'outcome unknown' };
  const MATCH = {
    unique: 'one match',
    multiple: 'several possible matches',
    none: 'no match',
    lookup_failed: 'the look-up failed',
  };
  const PROVENANCE = {
    caller_stated: 'said by the caller',
    caller_confirmed: 'confirmed by the caller',
    dtmf: 'entered by key',
    crm: 'from the CRM',
    sip: 'from the phone network',
    model_inferred: 'concluded by the assistant',
  };
  const SPEAKERS = { caller: 'Caller', agent: 'Assistant', human: 'You', system: 'System' };

  $('sign-in').addEventListener('submit', (event) => {
    event.preventDefault();
    token = $('token').value.trim();
    $('token').value = '';
    attempts = 0;
    connect();
  });
  $('accept').addEventListener('click', () => ask('accept', 'incoming'));
  $('decline').addEventListener('click', () => open($('why'), 'incoming'));
  $('hand-back').addEventListener('click', () => open($('sure'), 'bridged'));
  $('keys-show').addEventListener('click', () => open($('keys')));
  $('sure-yes').addEventListener('click', () => {
    $('sure').close();
    ask('hand_back', 'bridged');
  });
  $('transcript-load').addEventListener('click', showTranscript);
  $('done').addEventListener('click', done);
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', (event) => {
      const button = event.target.closest('button');
      if (button && button.dataset.reason) decline(button.dataset.reason);
      if (event.target === dialog || (button && 'close' in button.dataset)) dialog.close();
    });
  }

  /** One key for each action; in a dialog the numbers are its choices. */
  function key(name) {
    const dialog = document.querySelector('dialog[open]');
    if (dialog) {
      const choice = dialog.querySelector(`[aria-keyshortcuts="${name}"]`);
      if (choice && /^[1-9]$/.test(name)) choice.click();
      return Boolean(choice) && name !== 'Escape';
    }
    const act = {
      a: () => ask('accept', 'incoming'),
      d: () => open($('why'), 'incoming'),
      h: () => open($('sure'), 'bridged'),
      t: showTranscript,
      c: copyAll,
      o: () => $('record') && $('record').click(),
      s: () => $('headline').focus(),
      w: () => $('queue-title').focus(),
      '?': () => open($('keys')),
      Escape: done,
    }[name.length === 1 ? name.toLowerCase() : name];
    if (act) act();
    const line = /^[1-9]$/.test(name) && $('facts').querySelector(`[data-number="${name}"]`);
    if (line && !$('offer').hidden) line.click();
    return Boolean(act || line);
  }
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === 'INPUT') return;
    if (key(event.key)) event.preventDefault();
  });
  window.addEventListener('online', () => {
    if (socket || !token) return;
    clearTimeout(retry);
    connect();
  });
  setInterval(() => {
    tick();
    tickWaiting();
    watch();
  }, 1000);
  connect();
})();
