// The function in a process behind the worker: handler.js [CONCURRENCY]. Without a concurrency
// nothing is announced, and the process is given one request at a time.
'use strict';

const { createInterface } = require('node:readline');
const { decode } = require('./function.js');

const concurrency = process.argv[2];
if (concurrency !== undefined) {
    process.stdout.write(`{"ready":true,"concurrency":${concurrency}}\n`);
}
createInterface({ input: process.stdin }).on('line', (line) => {
    const { id, payload } = JSON.parse(line);
    process.stdout.write(`${JSON.stringify({ id, result: decode(payload) })}\n`);
});
