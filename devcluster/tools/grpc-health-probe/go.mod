module pilothouse/tools/grpc-health-probe

go 1.26

require github.com/grpc-ecosystem/grpc-health-probe v0.4.42
