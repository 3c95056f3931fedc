// Parses each diagram of a JSON list on standard input with mermaid itself; prints its kind, or fails.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.argv[2]}/`);
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { JSDOM } = (await load('jsdom')).default ?? (await load('jsdom'));
const { window } = new JSDOM('<body></body>');
Object.assign(globalThis, { window, document: window.document });
const mermaid = (await load('mermaid')).default;
let text = '';
for await (const part of process.stdin) text += part;
for (const diagram of JSON.parse(text)) console.log((await mermaid.parse(diagram)).diagramType);
