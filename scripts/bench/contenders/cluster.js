// Node's own HTTP server in a cluster, without a framework, the function inside:
// cluster.js PORT PROCESSES
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { decode } = require('./function.js');

const port = Number(process.argv[2]);
const processes = Number(process.argv[3]);

function answer(request, response) {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => {
        const { payload } = JSON.parse(Buffer.concat(pieces).toString());
        const body = JSON.stringify({ result: decode(payload) });
        response.writeHead(200, {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(body),
        });
        response.end(body);
    });
}

if (cluster.isPrimary) {
    for (let number = 0; number < processes; number += 1) {
        cluster.fork();
    }
    process.on('SIGTERM', () => {
        for (const worker of Object.values(cluster.workers)) {
            worker.process.kill('SIGTERM');
        }
        process.exit(0);
    });
} else {
    http.createServer(answer).listen(port, '127.0.0.1');
}
