// The page without it is whole. It looks for new figures, gives the chart a cursor, and answers keys.
const root = document.documentElement, one = (query, of = document) => of.querySelector(query);
const every = Number(document.body.dataset.refresh) * 1000, MOST = 60000;
let etag = null, wait = every, timer = 0, held = null;
root.classList.add('live');

// The chart: a slider whose words are those of the table.
function say(plot) {
  const rows = one('#chart-table tbody')?.rows, last = (rows?.length ?? 0) - 1;
  if (last < 0) return;
  const at = Math.min(Math.max(held ?? Number(plot.dataset.at ?? last), 0), last), [day, own, before] = [...rows[at].cells].map(cell => cell.textContent.trim());
  const words = `${day}: ${own}`, compared = one('.before-key') && before;
  const against = compared ? ` · ${one('.before-key').parentNode.textContent.trim()}: ${before}` : '';
  Object.entries({ role: 'slider', tabindex: 0, 'aria-label': plot.dataset.name, 'aria-orientation': 'horizontal', 'aria-valuemin': 1,
    'aria-valuemax': last + 1, 'aria-valuenow': at + 1, 'aria-valuetext': words + against }).forEach(pair => plot.setAttribute(...pair));
  const strong = document.createElement('strong'), rest = document.createElement('span');
  [strong.textContent, rest.textContent, rest.className] = [words, against, 'before-words'];
  one('#readout').replaceChildren(strong, rest);
  plot.classList.toggle('held', held !== null);
  one('.cursor', plot).setAttribute('x', `${100 * at / (last + 1)}%`);
}
function begin() {
  const plot = one('#plot');
  if (!plot) return;
  const count = () => one('#chart-table tbody').rows.length;
  plot.onpointermove = plot.onpointerdown = event => {
    const room = plot.getBoundingClientRect();
    held = Math.floor((event.clientX - room.left) / room.width * count());
    say(plot);
  };
  plot.onpointerleave = plot.onblur = () => { if (document.activeElement !== plot) { held = null; say(plot); } };
  plot.onfocus = () => { held ??= Number(plot.dataset.at ?? count() - 1); say(plot); };
  plot.onkeydown = event => {
    const at = held ?? count() - 1, step = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - 7,
      PageUp: at + 7, Home: 0, End: count() - 1 }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    held = Math.min(Math.max(step, 0), count() - 1);
    say(plot);
    event.preventDefault(); event.stopPropagation();
  };
  say(plot);
}

// New figures: the parts that differ, by their ids. Focus and open tables stay.
const parts = of => [...of.querySelectorAll('#fresh, main > [id], #panels > [id]')].filter(part => part.id !== 'panels');
function path(node) { const found = []; for (; node && !node.id; node = node.parentNode) found.unshift([...node.parentNode.children].indexOf(node)); return [node?.id, found]; }
const was = new Map(parts(document).map(part => [part.id, part.outerHTML]));
function take(text) {
  const next = new DOMParser().parseFromString(text, 'text/html'), [olds, news] = [parts(document), parts(next)];
  const open = [...document.querySelectorAll('details[open]')].map(it => it.id), active = document.activeElement;
  const [id, way] = active && active !== document.body ? path(active) : [];
  if (olds.map(it => it.id).join() !== news.map(it => it.id).join()) { one('main').replaceWith(one('main', next)); one('#fresh').replaceWith(one('#fresh', next)); news.forEach(it => was.set(it.id, it.outerHTML)); }
  else olds.forEach((old, index) => {
    if (old.id === 'head' && old.contains(active) && one('form', old)?.contains(active)) return;
    const html = news[index].outerHTML;
    if (was.get(old.id) !== html) { was.set(old.id, html); old.replaceWith(news[index]); }
  });
  document.title = next.title;
  open.forEach(it => { const details = it && document.getElementById(it); if (details) details.open = true; });
  if (id && !active.isConnected) {
    // The same link, wherever it has moved to; else what is in its place.
    const part = document.getElementById(id), to = active.getAttribute('href');
    const same = to && [...(part?.querySelectorAll('a') ?? [])].find(link => link.getAttribute('href') === to);
    (same || way.reduce((node, at) => node?.children[at], part))?.focus({ preventScroll: true });
  }
  begin();
}
async function look() {
  try {
    const answer = await fetch(location.href, { headers: etag ? { 'If-None-Match': etag } : {}, cache: 'no-store', signal: AbortSignal.timeout(30000) });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(answer.status);
      etag = answer.headers.get('ETag');
      take(await answer.text());
    }
    wait = every; root.classList.remove('stale'); one('#gone').textContent = '';
  } catch {
    const of = one('#fresh')?.dataset.asOf, now = new Date().toTimeString().slice(0, 8);
    if (!root.classList.contains('stale')) one('#gone').textContent = `No answer since ${now}${of ? `; these are the figures of ${of}` : ''}.`;
    root.classList.add('stale'); wait = Math.min(wait * 2, MOST);
  }
  later();
}
function later() { clearTimeout(timer); if (every > 0 && !document.hidden) timer = setTimeout(look, wait); }
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : look());

// Keys lead to what carries them.
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.target.closest('input, select, textarea')) return;
  if (event.key.startsWith('Arrow') && event.target.closest('.scroll, summary, pre')) return;
  const to = one(`[data-key="${CSS.escape(event.key)}"]`);
  if (!to) return;
  event.preventDefault();
  if (to.matches('input, select')) to.focus(); else { to.click(); if (to.matches('summary')) to.scrollIntoView({ block: 'nearest' }); }
});
begin(); later();
