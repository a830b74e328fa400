<?php
// The function behind nginx, in a process of php-fpm.

require __DIR__ . '/function.php';

$request = json_decode(file_get_contents('php://input'), true);
$body = json_encode(['result' => decode($request['payload'])]);
header('Content-Type: application/json');
// Without a length nginx would send the body in chunks.
header('Content-Length: ' . strlen($body));
echo $body;
