module pilothouse/tools/operator-sdk

go 1.26

require github.com/operator-framework/operator-sdk v1.42.2
