"""The look of the preview page: its style sheet, for light and dark, and its mark."""

from __future__ import annotations

LOGO = (
    '<svg class="logo" viewBox="0 0 32 32" aria-hidden="true">'
    '<rect width="32" height="32" rx="8" class="l0"/>'
    '<path class="l1" d="M6 22c3-9 8-14 13-13 4 1 5 5 3 9-2 5-9 8-16 4z"/>'
    '<path class="l2" d="M15 24c0-6 3-10 7-10s5 4 3 7c-2 4-6 6-10 3z"/></svg>'
)

CSS = """
:root{--page:#f6f7f9;--card:#fff;--ink:#14181f;--soft:#5b6573;--line:#e2e6ec;--accent:#2f6fec;
--accent-soft:#dbe7ff;
--bar:#4a83f0;--shadow:0 1px 2px rgb(16 24 40/.06),0 4px 16px rgb(16 24 40/.05)}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--ink:#e9edf3;--soft:#98a3b3;
--line:#272d38;
--accent:#7aa5ff;--accent-soft:#1d2c4d;--bar:#5c8ff5;--shadow:0 0 0 1px #222833}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:28px 24px 64px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
-webkit-font-smoothing:antialiased}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
header{display:flex;gap:14px;align-items:center;margin-bottom:22px}
header h1{margin:0;font-size:22px;line-height:1.2;letter-spacing:-.01em;overflow-wrap:anywhere}
header p{margin:2px 0 0;color:var(--soft)}
.logo{width:44px;height:44px;flex:none}.l0{fill:var(--accent)}.l1{fill:#fff;opacity:.55}.l2{fill:#fff;
opacity:.9}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:12px;margin:0 0 34px}
.tiles div{background:var(--card);border-radius:12px;padding:14px 18px;box-shadow:var(--shadow)}
.tiles dt{color:var(--soft);font-size:13px}.tiles dd{margin:0;font-size:27px;font-weight:650;
letter-spacing:-.02em;
font-variant-numeric:tabular-nums}.tiles small{color:var(--soft)}
section{margin:0 0 38px}h2{font-size:17px;margin:0 0 2px;letter-spacing:-.005em}.hint{color:var(--soft);
margin:0 0 14px}
.bar-top{display:flex;justify-content:space-between;align-items:center;gap:12px}
.gallery>input,figure>input{position:absolute;opacity:0;pointer-events:none}
.switches{display:flex;gap:8px}
.switches label{border:1px solid var(--line);background:var(--card);color:var(--soft);border-radius:999px;
padding:3px 14px;font-size:13px;cursor:pointer;user-select:none}
#fills:checked~.bar-top label[for=fills],#lines:checked~.bar-top label[for=lines]{
background:var(--accent-soft);
color:var(--accent);border-color:transparent;font-weight:600}
#fills:focus-visible~.bar-top label[for=fills],#lines:focus-visible~.bar-top label[for=lines],
figure>input:focus-visible+.stage{outline:2px solid var(--accent);outline-offset:2px}
.cards{columns:330px;column-gap:18px}
.cards figure{margin:0 0 18px;break-inside:avoid;background:var(--card);
border-radius:12px;box-shadow:var(--shadow);overflow:hidden;
position:relative}
.stage{display:block;position:relative;cursor:pointer;background:var(--line)}
.stage img{display:block;width:100%;height:100%}.stage svg{position:absolute;inset:0;width:100%;height:100%}
.stage path{fill:currentColor;fill-rule:evenodd;fill-opacity:.42;
stroke:color-mix(in srgb,currentColor 55%,#fff);
stroke-width:1.3px;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.stage path:hover{fill-opacity:.7;stroke:#fff;stroke-width:2.2px}
#fills:not(:checked)~.cards path:not(:hover){fill-opacity:0}
#lines:not(:checked)~.cards path:not(:hover){stroke-opacity:0}
.stage .open{position:absolute;inset:0;opacity:0;pointer-events:none}
#open:checked~.cards .open{opacity:.8}figure>input:checked+.stage .open{visibility:hidden}
#open:checked~.bar-top label[for=open]{background:var(--accent-soft);color:var(--accent);
border-color:transparent;font-weight:600}
#open:focus-visible~.bar-top label[for=open]{outline:2px solid var(--accent);outline-offset:2px}
.legend{white-space:nowrap}.legend i{display:inline-block;width:70px;height:9px;border-radius:5px;
border:1px solid var(--line);background:linear-gradient(90deg,transparent,rgb(255 92 0));margin:0 4px}
figure>input:checked+.stage svg{visibility:hidden}
.cards figcaption{display:flex;justify-content:space-between;gap:12px;padding:9px 14px 10px;font-size:13px}
.cards figcaption b{font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.cards figcaption span{color:var(--soft);white-space:nowrap;font-variant-numeric:tabular-nums}
.caption{margin:0;padding:0 14px 12px;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:14px}
.charts figure{margin:0;background:var(--card);border-radius:12px;padding:14px 18px 10px;
box-shadow:var(--shadow)}
.charts figcaption{font-weight:600;font-size:14px;margin-bottom:6px}
.chart{display:block;width:100%;overflow:visible}.chart .bar{fill:var(--bar)}.chart .hit{fill:transparent}
.chart g:hover .bar{fill:var(--accent)}.chart g:hover .hit{fill:var(--accent-soft);fill-opacity:.5}
.chart .axis{stroke:var(--line)}.chart .median{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:3 3;
pointer-events:none}
.chart .tick{fill:var(--soft);font-size:11px}.chart .strong{fill:var(--ink);font-weight:600}
.wide{overflow-x:auto;background:var(--card);border-radius:12px;box-shadow:var(--shadow);padding:4px 6px}
table{border-collapse:collapse;width:100%;font-size:13.5px}table.narrow{max-width:640px}
th{text-align:left;font-weight:600;color:var(--soft);font-size:12.5px}
th,td{padding:7px 12px;border-bottom:1px solid var(--line);vertical-align:top}
tbody tr:last-child td{border-bottom:0}td{overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.meter{width:35%;vertical-align:middle}.meter i{display:block;height:8px;border-radius:4px;
background:var(--bar)}
details{background:var(--card);border-radius:12px;box-shadow:var(--shadow);padding:12px 18px}
summary{cursor:pointer;font-weight:600}.facts th{width:220px;vertical-align:top}
@media print{body{max-width:none}.switches,.hint{display:none}}
""".strip()
